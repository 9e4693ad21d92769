"""Where the whole truth of the queue is kept."""
