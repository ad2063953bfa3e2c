"""The page of a run of drawing masks."""
