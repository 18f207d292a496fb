"""The Ray cluster: connecting, logs, placement, processes, storage.

Imports nothing of ours and no torch.
"""
