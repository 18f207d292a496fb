"""What a generate job tells of itself: progress, figures, a summary, a trace."""
