"""The command line: each verb a few lines over the Python API, importing only what it needs."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Counterfactual explanations of image classifiers.", no_args_is_help=True, add_completion=False)


@app.callback()
def root() -> None:
    """Counterfactual explanations of image classifiers."""


@app.command(context_settings={"ignore_unknown_options": True})
def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="--dotted.key value, any number of times.")] = None,
) -> None:
    """Train a network; any key of the file can be overridden: --optimizer.lr 3e-4."""
    from cfx.training.__main__ import main

    raise typer.Exit(main([str(config), *(overrides or [])]))
