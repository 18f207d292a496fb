"""`paceline distill drafter`: drafters that are accepted more often."""
