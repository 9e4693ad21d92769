"""Claims, reports and commands of a worker, and the Work stream."""
