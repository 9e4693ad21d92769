"""Shared by both clients: calls as data, reading of responses, and the state of watches."""
