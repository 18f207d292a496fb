"""Drafters that copy from text that is already there."""
