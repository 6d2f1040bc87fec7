"""Finding, reading and writing picture files with their metadata."""
