"""The commands: flags in, one call, an exit status."""
