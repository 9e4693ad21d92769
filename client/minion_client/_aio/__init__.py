"""The asynchronous client, in parts by kind of object."""
