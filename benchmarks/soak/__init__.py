"""A long run of everything at once, with checks at its end (see `__main__`)."""
