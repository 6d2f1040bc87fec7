"""The commands. Each parses flags, makes one call and returns an exit status."""

COMMANDS = {
    "denoise": "denoises pictures",
    "app": "shows a page to denoise pictures on, in a browser",
    "train": "trains a denoiser from noisy pictures",
    "adapt": "trains a model further on your pictures",
    "evaluate": "scores denoisers, with clean pictures or without",
    "noise": "reports the noise of pictures",
    "prepare": "cuts pictures into the patches that training reads",
    "export": "exports a model for servers and other runtimes",
    "client": "denoises pictures on a model server",
    "beam": "denoises pictures in an Apache Beam pipeline",
    "submit": "makes submissions to the SIDD and DND benchmarks",
    "demo": "makes noisy pictures to try the others on",
    "models": "lists the models that ship",
    "info": "describes this installation, for bug reports",
    "launch": "starts several workers of one training on this machine",
    "ship": "writes a trained model with weights of half the size",
    "completion": "prints a script that completes commands in a shell",
}
"""What each command does, by name; `cbsn.cli.NAME` has its `main` and `make_parser`."""
