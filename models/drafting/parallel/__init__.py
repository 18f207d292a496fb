"""Parallel decoders: the target's own passes provide the draft tokens."""
