"""Denoises pictures with the model that ships, or with another one. See `--help`."""

from cbsn.__main__ import run_command

if __name__ == "__main__":
    run_command("denoise")
