"""Shared by client, bridge and server: JSON values, size limits, error texts, status details."""
