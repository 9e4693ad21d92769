"""What the queue is about: plain data and rules, without I/O and without a clock."""
