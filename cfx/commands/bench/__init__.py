"""Benches: methods side by side on the user's own images, classifier and generator, in one run."""
