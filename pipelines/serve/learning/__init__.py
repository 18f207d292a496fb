"""`paceline serve --learn`: a drafter that is trained on the server's own answers."""
