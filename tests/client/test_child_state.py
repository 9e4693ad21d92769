"""What a job changes in its process: undone, or the process is replaced; the next job sees none."""

from __future__ import annotations

from pathlib import Path

import pytest
from client.worker_bench import WorkerBench

STATE = """
import atexit, decimal, faulthandler, gc, json, locale, logging, os, random, resource, signal
import socket, sys, tempfile, threading, time, warnings
from minion_client import task

ENV = dict(os.environ)
USED = []

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
        [str(signal.getsignal(n)).partition(" at ")[0] for n in (2, 3, 10, 12, 14, 15, 17)],
        sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        signal.getitimer(signal.ITIMER_REAL),
        [stream.closed for stream in (sys.stdin, sys.stdout, sys.stderr)],
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
        [t.name for t in threading.enumerate()],
        decimal.getcontext().prec,
        gc.isenabled(),
        gc.get_threshold(),
        faulthandler.is_enabled(),
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        sys.gettrace() is None,
        sys.getprofile() is None,
        sys.excepthook is sys.__excepthook__,
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
    "handlers": "[signal.signal(n, signal.SIG_IGN) for n in (2, 3, 10, 12, 15, 17)]",
    "mask": "signal.pthread_sigmask(signal.SIG_BLOCK, [15, 10])",
    "timer": "signal.setitimer(signal.ITIMER_REAL, 1000)",
    "stdout-closed": "sys.stdout.close()",
    "stderr-closed": "sys.stderr.close()",
    "stdin-closed": "sys.stdin.close()",
    "stdout-replaced": "sys.stdout = None",
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
    "thread": "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "lasting-thread": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "decimal": "decimal.getcontext().prec = 2",
    "decimal-default": "decimal.DefaultContext.prec = 2",
    "gc": "gc.disable(); gc.set_threshold(1); gc.freeze()",
    "faulthandler": "faulthandler.disable()",
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
