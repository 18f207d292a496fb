"""Models, and how a sequence is decoded: torch, no Ray."""
