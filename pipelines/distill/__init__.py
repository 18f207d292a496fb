"""`paceline distill`: a target becomes a student that makes the same images in fewer passes."""
