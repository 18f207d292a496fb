"""`paceline distill student`: few-step students of image targets."""
