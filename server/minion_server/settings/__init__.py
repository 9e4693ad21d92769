"""The settings of the commands: their table, their parsers and their sources."""
