"""The scheduler, the sessions of workers, and the background loops of the queue."""
