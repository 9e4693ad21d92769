"""Downloads one URL safely into a file: `fetch.fetch`."""
