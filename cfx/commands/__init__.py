"""One file a verb, and under `bench` one a bench: a configuration, what it runs, and what it leaves behind."""
