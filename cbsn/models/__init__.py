"""Trained models: saved-model folders, finding and loading, and the original checkpoints."""
