"""Writes outputs: rows, pictures."""
