"""Converts published image checkpoints to our layouts."""
