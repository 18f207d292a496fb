"""`paceline top`: a running server or job, in the terminal."""
