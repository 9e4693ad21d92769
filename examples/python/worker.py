"""A worker as a program; `minion worker --tasks tasks` does the same.

`MINION_API_KEY` is the server's key, `MINION_TARGET` its address.
"""

import asyncio
import logging
import os
import signal

import tasks  # noqa: F401 - registers its tasks
from minion_client import Worker


async def main() -> None:
    """Run jobs until SIGTERM or Ctrl-C; a second one ends the grace of running jobs."""
    target = os.environ.get("MINION_TARGET", "127.0.0.1:50051")
    worker = Worker.connect(target, key=os.environ.get("MINION_API_KEY"), jobs=8)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, worker.stop)
    await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
