"""The places of a pool's actors: what each may use, waiting for room, and room that was lost."""
