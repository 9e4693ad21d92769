"""The Minion job queue server."""
