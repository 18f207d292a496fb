"""Verification: which draft tokens are accepted."""
