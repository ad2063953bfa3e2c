"""`python -m cfx`: the command line, also under `torchrun -m cfx` and `accelerate launch -m cfx`."""

from cfx.cli import app

app(prog_name="cfx")
