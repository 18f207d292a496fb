"""Processes of a machine: which one it is, whether it has ended, and the end of those left over."""
