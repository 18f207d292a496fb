"""`paceline bench`: recipes measured side by side."""
