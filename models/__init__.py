"""Models and the decoding of sequences: torch, no Ray."""
