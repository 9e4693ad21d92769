"""The queue at work: its verbs, the scheduler, and the loops that keep it in order."""
