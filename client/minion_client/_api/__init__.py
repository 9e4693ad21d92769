"""What both clients share: calls as data, how responses are read, how long calls go on."""
