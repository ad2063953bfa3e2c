"""The audit: is the classifier right for the right reason? One run, one page."""
