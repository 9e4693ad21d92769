"""The synchronous client, in parts by kind of object."""
