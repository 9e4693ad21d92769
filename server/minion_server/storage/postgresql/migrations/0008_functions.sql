-- Which functions are in place: a digest of their source. They were numbers 2 to 7 once.
ALTER TABLE minion_server_schema ADD COLUMN functions TEXT NOT NULL DEFAULT '';
