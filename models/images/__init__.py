"""Image models: tokenizers of pixels, and what targets over their tokens need."""
