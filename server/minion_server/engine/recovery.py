"""What a server does about its predecessor before it takes jobs."""

from __future__ import annotations

import os
import socket

from minion_server.domain import limits
from minion_server.domain.backoff import Backoff
from minion_server.domain.maintenance import RepairReport, Retention
from minion_server.domain.worker import Registration, Worker, WorkerFilter
from minion_server.storage.base import Storage

EMBEDDED = "embedded"
"""Set in the status of a worker that runs inside a server, and dies with it."""


async def recover(storage: Storage, retention: Retention, backoff: Backoff) -> RepairReport:
    """Forget the workers of servers that died, and rescue the jobs they left.

    Call it before this server's own worker registers.
    """
    page = await storage.list_workers(WorkerFilter(), limit=limits.MAX_WORKERS)
    for worker in page.workers:
        if worker.status.get(EMBEDDED) and _is_dead(storage, worker):
            await storage.unregister_worker(worker.id)
        elif storage.exclusive:
            # Nobody was here to hear it: it has all its time to come back.
            await storage.register_worker(
                Registration(id=worker.id, host=worker.host, pid=worker.pid, status=worker.status)
            )
    return await storage.repair(retention, backoff)


def _is_dead(storage: Storage, worker: Worker) -> bool:
    if storage.exclusive:
        return True
    if worker.host != socket.gethostname():
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
