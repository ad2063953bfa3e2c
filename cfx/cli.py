"""The command line: each verb a few lines over the Python API, importing only what it needs."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of the run.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="--dotted.key value, any number of times.")]

app = typer.Typer(help="Counterfactual explanations of image classifiers.", no_args_is_help=True, add_completion=False)
bench = typer.Typer(help="Methods side by side on your own images, classifier and generator.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@app.callback()
def root() -> None:
    """Counterfactual explanations of image classifiers."""


@app.command(context_settings={"ignore_unknown_options": True})
def train(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train a network; any key of the file can be overridden: --optimizer.lr 3e-4."""
    from cfx.training.__main__ import main

    raise typer.Exit(main([str(config), *(overrides or [])]))


@app.command(context_settings={"ignore_unknown_options": True})
def explain(config: ConfigFile, overrides: Overrides = None) -> None:
    """Explain a cohort: writes atlas.zarr, report.html, summary.json and config.yaml into the run's folder."""
    from cfx.commands.explain import ExplainConfig, explain_run, lines

    def show(run: ExplainConfig) -> str:
        text = "\n".join(lines(explain_run(run)))
        return f"{text}\n\nwrote {run.folder}/report.html, atlas.zarr, summary.json, config.yaml"

    _run(ExplainConfig, config, overrides, show)


@app.command(context_settings={"ignore_unknown_options": True})
def audit(config: ConfigFile, overrides: Overrides = None) -> None:
    """Right for the right reason? Writes plan.json, report.html, summary.json and config.yaml into the run's folder."""
    from cfx.commands.audit import AuditConfig, audit_run

    def show(run: AuditConfig) -> str:
        reliance = audit_run(run).reliance
        return f"{reliance.verdict}: {reliance.sentence}\n\nwrote {run.folder}/report.html, summary.json, plan.json"

    _run(AuditConfig, config, overrides, show)


@app.command(context_settings={"ignore_unknown_options": True})
def demo(overrides: Overrides = None) -> None:
    """Explain 48 unseen simulated brains with the shipped checkpoints; run it from a checkout of the project."""
    explain(Path("configs/brain64-demo.yaml"), overrides)


@bench.command(context_settings={"ignore_unknown_options": True})
def counterfactual(config: ConfigFile, overrides: Overrides = None) -> None:
    """Compare methods of explanation; writes results.json, table.md, figure.png and config.yaml (--out DIR: where)."""
    from cfx.commands.bench.counterfactual import CounterfactualBench, run_bench

    def show(run: CounterfactualBench) -> str:
        run_bench(run, shlex.join(["cfx", "bench", "counterfactual", str(config), *(overrides or [])]))
        return f"{_table(run.folder)}\nwrote {run.folder}/results.json, table.md, figure.png, config.yaml"

    _run(CounterfactualBench, config, overrides, show)


@bench.command(context_settings={"ignore_unknown_options": True})
def planted(config: ConfigFile, overrides: Overrides = None) -> None:
    """Explain classifiers of planted factors: does the edit show the factor? Writes results.json and table.md."""
    from cfx.commands.bench.planted import PlantedBench, run_planted

    def show(run: PlantedBench) -> str:
        run_planted(run)
        return f"{_table(run.folder)}\nwrote {run.folder}/results.json, table.md, config.yaml"

    _run(PlantedBench, config, overrides, show)


@bench.command(context_settings={"ignore_unknown_options": True})
def reliance(config: ConfigFile, overrides: Overrides = None) -> None:
    """Check the reliance test itself: type I error and power; writes results.json, table.md, figure.png."""
    from cfx.commands.bench.reliance import RelianceBench, run_reliance

    def show(run: RelianceBench) -> str:
        run_reliance(run)
        return f"{_table(run.folder)}\nwrote {run.folder}/results.json, table.md, figure.png, config.yaml"

    _run(RelianceBench, config, overrides, show)


@bench.command(context_settings={"ignore_unknown_options": True})
def remedies(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train classifiers with every remedy against a planted confounder; writes results.json and table.md."""
    from cfx.commands.bench.remedies import RemediesBench, run_remedies

    def show(run: RemediesBench) -> str:
        run_remedies(run)
        return f"{_table(run.folder)}\nwrote {run.folder}/results.json, table.md, config.yaml"

    _run(RemediesBench, config, overrides, show)


def _table(folder: Path) -> str:
    """The table that the main process wrote; the others have nothing to print."""
    table = folder / "table.md"
    return table.read_text() if table.exists() else ""


def _run(model: type[Any], config: Path, overrides: list[str] | None, show: Callable[[Any], str]) -> None:
    """Read the configuration, run, and print what `show` returns, once; an error of cfx is one line and exit code 2."""
    from cfx.core.errors import CfxError
    from cfx.runtime.config import read_as, split_overrides
    from cfx.runtime.shares import is_main, leave

    try:
        text = show(read_as(model, config, split_overrides(overrides or [])))
    except CfxError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if is_main():
        typer.echo(text)
    leave()
