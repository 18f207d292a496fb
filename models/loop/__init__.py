"""The token loop: one step for all running requests."""
