"""Answers in the forms of each interface, whole or as streams."""
