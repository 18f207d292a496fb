"""Image models: image tokenizers, and targets over their tokens."""
