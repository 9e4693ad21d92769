"""Enqueue jobs, watch one and wait for the others: `python enqueue.py FILE...`.

`MINION_API_KEY` is the server's key, `MINION_TARGET` its address.
"""

import os
import sys

from minion_client import Client, JobFailedError, NewJob


def main(files: list[str]) -> int:
    """Greet, print the checksums of files, and return how many jobs did not finish."""
    failed = 0
    target = os.environ.get("MINION_TARGET", "127.0.0.1:50051")
    with Client(target, key=os.environ.get("MINION_API_KEY")) as minion:
        # An urgent job, tried up to three times.
        for job in minion.watch(minion.enqueue("greet", ["Ada"], priority=5, attempts=3)):
            print(job.state, "" if job.result is None else job.result)
        ids = minion.enqueue_many(NewJob(task="checksum", args=[file]) for file in files)
        for file, job_id in zip(files, ids, strict=True):
            try:
                print(file, minion.wait(job_id, timeout=60))
            except JobFailedError as error:
                failed += 1
                print(file, "failed:", error.result)
            except TimeoutError:
                failed += 1
                print(file, "is not done:", minion.explain(job_id).summary)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
