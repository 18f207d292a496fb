"""Pools of actors: requests in, results out, whoever dies in between."""
