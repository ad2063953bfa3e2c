"""What every run needs, whatever it computes: configuration, processes, files written whole, provenance, a folder."""
