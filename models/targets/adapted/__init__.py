"""Targets that transformers runs."""
