"""The commands. Each parses flags, makes one call and returns an exit status."""
