"""`paceline top`: a running server or job, in the terminal."""

PLACE = "URL|FOLDER"  # the argument, as --help and messages name it
