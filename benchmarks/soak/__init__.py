"""A long run of everything at once, and what must hold at its end (see `__main__`)."""
