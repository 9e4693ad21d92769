"""What a server does about its predecessor before it takes jobs."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from minion_server.domain import limits
from minion_server.domain.errors import Exhausted, Unavailable
from minion_server.domain.job import JsonValue
from minion_server.domain.maintenance import RepairReport
from minion_server.domain.worker import Registration, Worker, WorkerFilter
from minion_server.storage.base import Storage

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
"""Set in the status of a worker that runs inside a server, and dies with it."""
PID_NAMESPACE = "pid_namespace"
"""In the same status: where its process id means something (see `pid_namespace`)."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def embedded_status() -> dict[str, JsonValue]:
    """Return what a worker in this process adds to its status."""
    return {EMBEDDED: True, PID_NAMESPACE: pid_namespace()}


def pid_namespace() -> str | None:
    """Return a name of this process's PID namespace, or None where there is no telling.

    Containers may share a host name and have the same process ids. No process leaves its namespace,
    and the number of one is not used again while a process lives in it, until the next boot.
    """
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
        return f"{boot}/{_NAMESPACE.stat().st_ino}"
    except OSError:
        return None


async def recover(storage: Storage, *, own_namespace: str | None) -> RepairReport:
    """Forget the workers of servers that died, and rescue the jobs they left.

    Call it before this server's own worker registers. A worker that cannot be dealt with is left to
    the repairs that follow; nobody is judged by a silence in which this server did not listen.

    Args:
        storage: Where workers and jobs are.
        own_namespace: This process's (see `pid_namespace`).

    Raises:
        Unavailable, Exhausted: The store is out of reach or full. Any other failure of the repair
            is logged.
    """
    page = await storage.list_workers(WorkerFilter(), limit=limits.MAX_WORKERS)
    for worker in page.workers:
        try:
            await _recover_one(storage, worker, own_namespace)
        except (Unavailable, Exhausted):
            raise
        except Exception as error:  # noqa: BLE001 - of whatever kind: its row may be another program's
            logger.warning("worker %d is left as it is: %s", worker.id, error)
    try:
        return await storage.repair(heard_for=storage.uptime())
    except (Unavailable, Exhausted):
        raise
    except Exception:
        # The repairs that follow try it again: one odd row must not keep a server from starting.
        logger.exception("the repair at the start failed")
        return RepairReport()


async def _recover_one(storage: Storage, worker: Worker, own_namespace: str | None) -> None:
    """Forget a worker that is dead; give another all its time to come back, if need be."""
    if worker.status.get(EMBEDDED) and _is_dead(storage, worker, own_namespace):
        await storage.unregister_worker(worker.id)
    elif storage.exclusive:
        # Nobody was here to hear it.
        await storage.register_worker(
            Registration(id=worker.id, host=worker.host, pid=worker.pid, status=worker.status)
        )


def _is_dead(storage: Storage, worker: Worker, own_namespace: str | None) -> bool:
    if storage.exclusive:
        return True
    if own_namespace is None or worker.status.get(PID_NAMESPACE) != own_namespace:
        return False
    # This process has not registered yet: its id was another's before.
    return worker.pid == os.getpid() or not _is_running(worker.pid)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
