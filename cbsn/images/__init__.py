"""Picture files: reading, writing, metadata, finding."""
