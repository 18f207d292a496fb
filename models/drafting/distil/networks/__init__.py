"""The networks of drafters for training, which give logits at all positions of a text."""
