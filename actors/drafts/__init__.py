"""Draft actors, and the targets' side of them."""
