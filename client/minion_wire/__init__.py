"""What client, bridge and server share: JSON values, their limits, error texts, status details."""
