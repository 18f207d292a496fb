"""Schedules: which output positions the next pass decides."""
