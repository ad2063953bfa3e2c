"""The page of a run of out-of-distribution detection."""
