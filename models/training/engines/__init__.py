"""Who holds weights and moments during a training: every worker all of them, or each its part."""
