"""Trained models: folders, finding and loading, the original checkpoints."""
