"""The command line, one file per command."""

import os

# Worker processes are started by exec: gRPC need not prepare its threads for a fork, and warn.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
