"""The asynchronous client."""

from __future__ import annotations

from minion_client._aio.administration import Administration
from minion_client._aio.jobs import Jobs
from minion_client._aio.locks import Locks
from minion_client._aio.schedules import Schedules
from minion_client._aio.workers import Workers


class AsyncClient(Jobs, Workers, Locks, Schedules, Administration):
    """A connection to a server, for use on one event loop.

    Every method takes a `timeout`, the limit of each of its calls in seconds. Idempotent calls,
    `enqueue` among them, are repeated a few times while the server cannot be reached.

    Every method can raise a `MinionError`: `InvalidError` for an invalid value, with its field;
    `NotFoundError` for a job that does not exist; `KeyRefusedError` for a missing or wrong key;
    `UnavailableError` if the server cannot be reached; `DeadlineError` if there is no response in
    time.

    Args:
        target: `HOST:PORT` of the server, or an `Endpoint` in place of `key`, `tls` and `options`.
        key: The server's key.
        tls: Whether to use TLS, and which authorities to trust (see `minion_client.endpoint.Tls`).
        timeout: Default limit of a call, in seconds.
        options: gRPC channel arguments.
    """
