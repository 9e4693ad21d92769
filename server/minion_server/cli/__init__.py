"""The command line, one file per command."""

import os

# Worker processes are started by exec: gRPC need not make its threads ready for a fork, nor say so.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
