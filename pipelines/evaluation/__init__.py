"""What `paceline evaluate` is made of: sets of samples read, compared, reported."""
