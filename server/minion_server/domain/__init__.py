"""Domain types and rules of the queue: plain data, without I/O and without a clock."""
