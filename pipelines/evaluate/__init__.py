"""`paceline evaluate`: sets of samples read, compared, reported."""
