"""The settings of the commands: one table, the readers of values, and where values come from."""
