"""The command line: each verb a few lines over the Python API, importing only what it needs."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Counterfactual explanations of image classifiers.", no_args_is_help=True, add_completion=False)
bench = typer.Typer(help="Methods side by side on your own images, classifier and generator.", no_args_is_help=True)
app.add_typer(bench, name="bench")


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


@app.command(context_settings={"ignore_unknown_options": True})
def explain(
    config: Annotated[Path, typer.Argument(help="YAML file of the run.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="--dotted.key value, any number of times.")] = None,
) -> None:
    """Explain a cohort: writes atlas.zarr, report.html, summary.json and config.yaml into the run's folder."""
    from cfx.core.errors import CfxError
    from cfx.report.run import ExplainConfig, explain_run, lines
    from cfx.training.config import read_as, split_overrides
    from cfx.training.distributed import is_main, leave

    try:
        run = read_as(ExplainConfig, config, split_overrides(overrides or []))
        summary = explain_run(run)
    except CfxError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if is_main():
        typer.echo("\n".join(lines(summary)))
        typer.echo(f"\nwrote {run.folder}/report.html, atlas.zarr, summary.json, config.yaml")
    leave()


@app.command(context_settings={"ignore_unknown_options": True})
def demo(
    overrides: Annotated[list[str] | None, typer.Argument(help="--dotted.key value, any number of times.")] = None,
) -> None:
    """Explain 48 unseen simulated brains with the shipped checkpoints; run it from a checkout of the project."""
    explain(Path("configs/brain64-demo.yaml"), overrides)


@bench.command(context_settings={"ignore_unknown_options": True})
def counterfactual(
    config: Annotated[Path, typer.Argument(help="YAML file of the bench.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="--dotted.key value, any number of times.")] = None,
) -> None:
    """Compare methods of explanation; writes results.json, table.md, figure.png and config.yaml (--out DIR: where)."""
    from cfx.bench.counterfactual import CounterfactualBench, run_bench
    from cfx.core.errors import CfxError
    from cfx.training.config import read_as, split_overrides
    from cfx.training.distributed import is_main, leave

    try:
        run = read_as(CounterfactualBench, config, split_overrides(overrides or []))
        run_bench(run, shlex.join(["cfx", "bench", "counterfactual", str(config), *(overrides or [])]))
    except CfxError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if is_main():
        typer.echo((run.folder / "table.md").read_text())
        typer.echo(f"wrote {run.folder}/results.json, table.md, figure.png, config.yaml")
    leave()


@bench.command(context_settings={"ignore_unknown_options": True})
def planted(
    config: Annotated[Path, typer.Argument(help="YAML file of the bench.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="--dotted.key value, any number of times.")] = None,
) -> None:
    """Explain classifiers of planted factors: does the edit show the factor? Writes results.json and table.md."""
    from cfx.bench.planted import PlantedBench, run_planted
    from cfx.core.errors import CfxError
    from cfx.training.config import read_as, split_overrides
    from cfx.training.distributed import is_main, leave

    try:
        run = read_as(PlantedBench, config, split_overrides(overrides or []))
        run_planted(run)
    except CfxError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if is_main():
        typer.echo((run.folder / "table.md").read_text())
    leave()
