"""Image tokenizers: pixels to tokens and back."""

TOKENIZER_FOLDER = "tokenizer"  # of an image target's checkpoint: its image tokenizer
OURS = "paceline_"  # prefix of `model_type` in our own layouts, which are all of image targets
