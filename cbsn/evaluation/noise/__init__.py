"""The command that says what noise is in pictures."""
