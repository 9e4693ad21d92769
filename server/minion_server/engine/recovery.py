"""Recovers from the death of an earlier server, before this one takes jobs."""

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
"""Set in the same status: the namespace of its process id (see `pid_namespace`)."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def embedded_status() -> dict[str, JsonValue]:
    """Return the entries that a worker in this process adds to its status."""
    return {EMBEDDED: True, PID_NAMESPACE: pid_namespace()}


def pid_namespace() -> str | None:
    """Return a name of this process's PID namespace, or None if it cannot be read.

    Containers may have the same host name and process ids. A process never leaves its namespace,
    whose number is not reused while the process lives, until the next boot.
    """
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
        return f"{boot}/{_NAMESPACE.stat().st_ino}"
    except OSError:
        return None


async def recover(storage: Storage, *, own_namespace: str | None) -> RepairReport:
    """Unregister the workers of servers that died, and repair the queue.

    Call it before this server's own worker registers. A worker that cannot be recovered is left to
    later repairs. Silence before the start of this server does not count against a worker.

    Args:
        storage: The store of the workers and jobs.
        own_namespace: Namespace of this process (see `pid_namespace`).

    Raises:
        Unavailable, Exhausted: The store is unreachable or full. Any other failure is logged.
    """
    page = await storage.list_workers(WorkerFilter(), limit=limits.MAX_WORKERS)
    for worker in page.entries:
        try:
            await _recover_one(storage, worker, own_namespace)
        except (Unavailable, Exhausted):
            raise
        except Exception as error:  # noqa: BLE001 - another program may have written its row
            logger.warning("cannot recover worker %d: %s", worker.id, error)
    try:
        return await storage.repair(heard_for=storage.uptime())
    except (Unavailable, Exhausted):
        raise
    except Exception:
        # Later repairs try again: one bad row must not keep a server from starting.
        logger.exception("the repair at the start failed")
        return RepairReport()


async def _recover_one(storage: Storage, worker: Worker, own_namespace: str | None) -> None:
    """Unregister a dead worker; if no other server runs, give a live one time to come back."""
    if worker.status.get(EMBEDDED) and _is_dead(storage, worker, own_namespace):
        await storage.unregister_worker(worker.id)
    elif storage.exclusive:
        # No server could receive its heartbeats.
        await storage.register_worker(
            Registration(id=worker.id, host=worker.host, pid=worker.pid, status=worker.status)
        )


def _is_dead(storage: Storage, worker: Worker, own_namespace: str | None) -> bool:
    if storage.exclusive:
        return True
    if own_namespace is None or worker.status.get(PID_NAMESPACE) != own_namespace:
        return False
    # This process has not registered yet: the process id belonged to an earlier process.
    return worker.pid == os.getpid() or not _is_running(worker.pid)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
