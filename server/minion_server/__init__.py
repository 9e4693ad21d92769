"""minion_server."""
