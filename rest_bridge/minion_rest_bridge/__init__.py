"""The REST bridge: JSON over HTTP in front of Minion's gRPC services."""
