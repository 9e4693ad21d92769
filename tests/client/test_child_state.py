"""State that a job changes in its process is restored, or the process is replaced."""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path

import pytest
from client.worker_bench import WorkerBench

STATE = """
import atexit, builtins, csv, decimal, faulthandler, gc, json, locale, logging
import multiprocessing, os, random, resource, signal, socket, sys, tempfile, threading, time
import tracemalloc, warnings
from minion_client import task

ENV = dict(os.environ)
USED = []

def _loaded(module, name):
    return repr(getattr(sys.modules.get(module), name, None))

def _children():
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True

def _seen():
    try:
        directory = os.getcwd()
    except OSError:
        directory = None
    mask = os.umask(0o022)
    os.umask(mask)
    return [
        directory,
        mask,
        dict(os.environ) == ENV,
        [str(signal.getsignal(n)).partition(" at ")[0] for n in (2, 3, 10, 12, 14, 15, 17, 40)],
        sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        signal.getitimer(signal.ITIMER_REAL),
        [stream.closed for stream in (sys.stdin, sys.stdout, sys.stderr)],
        [(stream.encoding, stream.errors) for stream in (sys.stdin, sys.stdout, sys.stderr)],
        [os.get_blocking(fd) for fd in (0, 1, 2)],
        [os.fstat(fd).st_ino for fd in (0, 1, 2)],
        resource.getrlimit(resource.RLIMIT_NOFILE),
        resource.getrlimit(resource.RLIMIT_CORE),
        locale.setlocale(locale.LC_ALL),
        list(sys.path),
        len(sys.argv),
        len(warnings.filters),
        logging.root.level,
        len(logging.root.handlers),
        logging.root.manager.disable,
        logging.getLogger("mine").level,
        getattr(logging.root.manager.loggerDict.get("another"), "level", 0),
        logging.raiseExceptions,
        logging.getLoggerClass().__name__,
        [t.name for t in threading.enumerate()],
        threading.gettrace(),
        threading.getprofile(),
        threading.excepthook.__module__,
        threading.stack_size(),
        _children(),
        len(os.listdir("/proc/self/fd")) > 400,
        decimal.getcontext().prec,
        decimal.Context().prec,
        gc.isenabled(),
        gc.get_threshold(),
        faulthandler.is_enabled(),
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        sys.gettrace() is None,
        sys.getprofile() is None,
        sys.excepthook is sys.__excepthook__,
        sys.get_int_max_str_digits(),
        getattr(sys, "tracebacklimit", None),
        tuple(sys.get_asyncgen_hooks()),
        sys.get_coroutine_origin_tracking_depth(),
        sys.monitoring.get_tool(4) if hasattr(sys, "monitoring") else None,
        [type(hook).__name__ for hook in sys.meta_path],
        len(sys.path_hooks),
        tracemalloc.is_tracing(),
        sorted(vars(builtins)),
        _loaded("urllib.request", "_opener"),
        _loaded("asyncio.events", "_event_loop_policy"),
        csv.field_size_limit(),
        multiprocessing.get_start_method(allow_none=True),
        os.sep,
        os.getgroups(),
        socket.getdefaulttimeout(),
        os.getpriority(os.PRIO_PROCESS, 0),
        sorted(os.sched_getaffinity(0)),
        tempfile.tempdir,
        time.tzname,
        json.dumps([1]),
        json.loads("[1]"),
        sys.modules.get("json") is json,
        open.__module__,
    ]

logging.getLogger("mine")

@task
def seen(job):
    return _seen()

@task
def change(job, code):
    exec(code, globals())
    return "changed"

@task
def draw(job, seed):
    if seed:
        random.seed(1)
    return random.random()
"""

TAKE = """for n in range(3, 64):
    if n != fd: os.dup2(fd, n)
"""

CHANGES = {
    "cwd": "os.chdir('/')",
    "cwd-removed": "d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
    "umask": "os.umask(0o777)",
    "environ-cleared": "os.environ.clear()",
    "environ-set": "os.environ.update(PATH='/nowhere', MINE='1')",
    "environ-replaced": "os.environ = {'MINE': '1'}",
    "real-time-handler": "signal.signal(40, signal.SIG_IGN)",
    "handlers": "[signal.signal(n, signal.SIG_IGN) for n in (2, 3, 10, 12, 15, 17)]",
    "mask": "signal.pthread_sigmask(signal.SIG_BLOCK, [15, 10])",
    "timer": "signal.setitimer(signal.ITIMER_REAL, 1000)",
    "stdout-closed": "sys.stdout.close()",
    "stderr-closed": "sys.stderr.close()",
    "stdin-closed": "sys.stdin.close()",
    "stdout-replaced": "sys.stdout = None",
    "stdout-reconfigured": "sys.stdout.reconfigure(encoding='latin-1')",
    "stdio-fds-closed": "[os.close(fd) for fd in (0, 1, 2)]",
    "stdout-redirected": "os.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
    "not-blocking": "os.set_blocking(0, False)",
    "limit-lowered": "resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))",
    "soft-limit": "resource.setrlimit(resource.RLIMIT_CORE, (0, -1))",
    "locale": "locale.setlocale(locale.LC_ALL, 'C')",
    "path": "sys.path.clear()",
    "path-replaced": "sys.path = []",
    "argv": "sys.argv[:] = ['x']",
    "warnings": "warnings.simplefilter('error')",
    "logging": "logging.root.handlers.clear(); logging.root.setLevel(50)",
    "logging-disabled": "logging.disable(50); logging.getLogger('mine').setLevel(40)",
    "new-logger": "logging.getLogger('another').setLevel(40)",
    "logging-errors": "logging.raiseExceptions = False",
    "logger-class": "logging.setLoggerClass(type('Mine', (logging.Logger,), {}))",
    "thread-hooks": "threading.settrace(print); threading.setprofile(print)",
    "thread-excepthook": "threading.excepthook = None",
    "stack-size": "threading.stack_size(2**20)",
    "program": "import subprocess; USED.append(subprocess.Popen(['sleep', '600']))",
    "program-that-ended": "USED.append(os.posix_spawn('/bin/true', ['true'], {}))",
    "fork": "os.fork() or os._exit(0)",
    "thread": "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "lasting-thread": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "decimal": "decimal.getcontext().prec = 2",
    "decimal-default": "decimal.DefaultContext.prec = 2",
    "gc": "gc.disable(); gc.set_threshold(1); gc.freeze()",
    "faulthandler": "faulthandler.disable()",
    "digits": "sys.set_int_max_str_digits(1000)",
    "tracebacks": "sys.tracebacklimit = 0",
    "generator-hooks": "sys.set_asyncgen_hooks(print, print)",
    "origin-tracking": "sys.set_coroutine_origin_tracking_depth(5)",
    "monitoring": "hasattr(sys, 'monitoring') and sys.monitoring.use_tool_id(4, 'mine')",
    "meta-path": "sys.meta_path.insert(0, type('Mine', (), {'find_spec': lambda *a: None})())",
    "meta-path-cleared": "sys.meta_path.clear()",
    "path-hooks": "sys.path_hooks.append(lambda path: None)",
    "tracemalloc": "tracemalloc.start()",
    "builtin": "builtins.mine = 1",
    "opener": "import urllib.request as r; r.install_opener(r.build_opener())",
    "field-limit": "csv.field_size_limit(10)",
    "start-method": "multiprocessing.set_start_method('spawn', force=True)",
    "loop-policy": "import asyncio as a; a.set_event_loop_policy(a.DefaultEventLoopPolicy())",
    "event-loop": "import asyncio; asyncio.set_event_loop(asyncio.new_event_loop())",
    "constant": "os.sep = 'x'",
    "groups": "os.geteuid() or os.setgroups([7])",
    "recursion": "sys.setrecursionlimit(5000)",
    "switch": "sys.setswitchinterval(1)",
    "trace": "sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)",
    "hook": "sys.excepthook = None",
    "socket": "socket.setdefaulttimeout(0.001)",
    "nice": "os.nice(5)",
    "affinity": "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])",
    "tempdir": "tempfile.tempdir = '/nowhere'",
    "timezone": "os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()",
    "patched": "json.dumps = None",
    "deleted": "del json.loads",
    "module": "sys.modules['json'] = sys",
    "module-deleted": "del sys.modules['json']",
    "descriptors": (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n    while True: USED.append(os.open('/dev/null', 0))\nexcept OSError: pass"
    ),
    "many-descriptors": (
        "try:\n    while len(USED) < 1100: USED.append(os.open('/dev/null', 0))\n"
        "except OSError: pass"
    ),
    "exit-handlers": "atexit.register(print)",
    "alarm-while-ending": "signal.signal(14, lambda *a: None); signal.alarm(1)",
    "wakeup": "USED.append(socket.socketpair()); USED[-1][0].setblocking(False); "
    "signal.set_wakeup_fd(USED[-1][0].fileno())",
}


@pytest.fixture
async def states(bench: WorkerBench) -> WorkerBench:
    bench.module("states", STATE, "seen", "change", "draw")
    bench.worker(pool=bench.process_pool("states"), jobs=1, spare=0)
    return bench


@pytest.mark.parametrize("code", CHANGES.values(), ids=CHANGES.keys())
async def test_what_a_job_changes_does_not_reach_the_next(states: WorkerBench, code: str) -> None:
    before = (await states.run_job("seen")).result
    changed = await states.run_job("change", code)
    assert (changed.state, changed.result) == ("finished", "changed")
    after = await states.run_job("seen")
    assert after.state == "finished"
    differing = [(a, b) for a, b in zip(before, after.result, strict=True) if a != b]
    assert differing == []


LATER = """
import atexit, logging, sys

class Finder:
    def find_spec(*args):
        return None

sys.meta_path.append(Finder())
sys.path_hooks.append(Finder)
logging.getLogger("later.part").setLevel(40)
atexit.register(print)
"""


async def test_what_importing_a_module_sets_up_stays_with_it(states: WorkerBench) -> None:
    (states.modules / "later.py").write_text(LATER)
    await states.run_job("change", "import later; later.PID = os.getpid()")
    code = """if (
    sys.modules["later"].PID, sys.meta_path[-1].__module__, sys.path_hooks[-1].__module__,
    logging.getLogger("later.part").level,
) != (os.getpid(), "later", "later", 40): raise LookupError"""
    for _ in range(2):
        assert (await states.run_job("change", code)).result == "changed"


@pytest.mark.parametrize("code", ["POP3 = None", "CR = b'x'"])
async def test_what_a_job_imported_is_not_changed_by_the_next(
    states: WorkerBench, code: str
) -> None:
    await states.run_job("change", "import poplib; poplib.PID = os.getpid()")
    code = f"import poplib; assert poplib.PID == os.getpid(); poplib.{code}"
    assert (await states.run_job("change", code)).result == "changed"
    check = "import poplib; assert isinstance(poplib.POP3, type) and poplib.CR == bytes([13])"
    assert (await states.run_job("change", check)).result == "changed"


async def test_globals_and_a_few_open_files_stay(states: WorkerBench) -> None:
    await states.run_job("change", "PID = os.getpid(); FILE = open('/dev/null', 'wb')")
    again = await states.run_job("change", "assert PID == os.getpid(); FILE.write(b'x')")
    assert again.result == "changed"


async def test_the_event_loop_that_a_module_has_set_stays_current(bench: WorkerBench) -> None:
    text = """
import asyncio, os
from minion_client import task

LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)

@task
def run(job):
    asyncio.run(asyncio.sleep(0))
    return os.getpid()

@task
def current(job):
    return [os.getpid(), asyncio.get_event_loop() is LOOP]
"""
    bench.module("loops", text, "run", "current")
    bench.worker(pool=bench.process_pool("loops"), jobs=1, spare=0)
    process = (await bench.run_job("run")).result
    assert (await bench.run_job("current")).result == [process, True]


async def test_a_program_that_a_job_leaves_behind_ends_with_it(
    states: WorkerBench, tmp_path: Path
) -> None:
    # The program is the only one that has this end of the pipe.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    code = f"import subprocess; subprocess.Popen('exec sleep 600 > {pipe}', shell=True)"
    code += f"\nos.open({str(pipe)!r}, os.O_WRONLY)"
    assert (await states.run_job("change", code)).result == "changed"
    async with asyncio.timeout(10):
        await asyncio.get_running_loop().run_in_executor(None, select.select, [reader], [], [])
    assert os.read(reader, 1) == b""
    os.close(reader)


async def test_a_seed_does_not_reach_the_next_job(states: WorkerBench) -> None:
    await states.run_job("draw", True)
    first = (await states.run_job("draw", False)).result
    await states.run_job("draw", True)
    assert (await states.run_job("draw", False)).result != first


@pytest.mark.parametrize(
    "code",
    [
        "os.closerange(3, 256)",
        "fd = os.open('/dev/null', 1)\n" + TAKE,
    ],
    ids=["closed", "replaced"],
)
async def test_a_job_that_takes_the_connection_fails_clearly(
    states: WorkerBench, code: str
) -> None:
    job = await states.run_job("change", code)
    assert job.result == "Job closed the connection of its worker process"
    assert (await states.run_job("seen")).state == "finished"


async def test_what_is_opened_in_place_of_the_connection_is_not_written_to(
    states: WorkerBench, tmp_path: Path
) -> None:
    target = tmp_path / "file"
    code = f"fd = os.open({str(target)!r}, os.O_WRONLY | os.O_CREAT)\n"
    await states.run_job("change", code + TAKE)
    assert target.read_bytes() == b""
