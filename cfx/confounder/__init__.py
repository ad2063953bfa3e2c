"""Is the classifier right for the right reason? Probes, transfers and tests of confounding."""
