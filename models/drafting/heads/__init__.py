"""Drafters that read the hidden states of the target: EAGLE-3, Medusa."""
