"""A package of its own, so that `tests.` never means the folder that monai-generative installs beside its modules."""
