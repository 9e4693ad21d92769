"""minion_rest_bridge."""
