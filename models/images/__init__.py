"""Image models: tokenizers of pixels, and what targets over their tokens need."""

TOKENIZER_FOLDER = "tokenizer"  # of an image target's checkpoint: its image tokenizer
OURS = "paceline_"  # what the model_type of our own layouts begins with; targets are of images
