"""The Ray cluster: connecting, storage. Imports nothing of ours and no torch."""
