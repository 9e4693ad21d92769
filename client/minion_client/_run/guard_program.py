"""The program of a worker's guard: `python -I -S guard_program.py` (see `guard`).

It imports only what it needs, since it runs beside every worker with child processes.
"""

import os
import signal
import sys


def main() -> None:
    """Read the process groups from stdin until it is closed, then kill those that are left."""
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        group = int(line[1:])
        if line.startswith(b"+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            # The group has ended.
            continue


if __name__ == "__main__":
    main()
