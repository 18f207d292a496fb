"""How much a server that learns stores of its requests, at most."""

MOST_ROWS = 20_000
MOST_BYTES = 256 * 2**20
