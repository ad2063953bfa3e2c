"""What data and predictions show without an intervention: tests of independence, balance, groups of maps."""
