"""The shape of brains: models of it, transfer from one brain to another, and taking it away."""
