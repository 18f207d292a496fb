"""Next-scale image targets (VAR's layout)."""
