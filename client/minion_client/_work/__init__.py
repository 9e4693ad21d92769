"""Between a worker and its source: claims, reports, commands, and a server's stream."""
