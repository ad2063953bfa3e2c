"""The command line: the verbs of `cfx.commands.registry`, each importing only what it needs when it is asked for."""

import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from cfx.commands.registry import BENCHES, VERBS, Verb

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of the run.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="--dotted.key value, any number of times.")]
ImageFolder = Annotated[Path, typer.Argument(help="Folder of images, an npz file or a zarr store.")]
OutFolder = Annotated[Path, typer.Option(help="Where to write.")]
RunName = Annotated[str | None, typer.Option(help="Name of the runs; by default the folder's.")]
Words = Annotated[list[str] | None, typer.Argument(help="A verb: explain, bench planted; all by default.")]


def _say_version(asked: bool) -> bool:
    if asked:
        from importlib.metadata import version

        typer.echo(f"cfx {version('cfx')}")
        raise typer.Exit
    return asked


Version = Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which, and exit.")]
_UNKNOWN = {"ignore_unknown_options": True}  # they are overrides


def build() -> typer.Typer:
    """The command line with every verb that is registered."""
    made = typer.Typer(help="Counterfactual explanations of image classifiers.", no_args_is_help=True)
    bench = typer.Typer(help="Methods side by side on your own images, classifier and generator.", no_args_is_help=True)
    made.callback()(root)
    made.command(context_settings=_UNKNOWN)(train)
    made.command()(config)
    made.command()(init)
    made.command(context_settings=_UNKNOWN)(check)
    made.command()(verify)
    for name, verb in VERBS.items():
        add(made, name, verb)
    for name, verb in BENCHES.items():
        add(bench, name, verb, ("cfx", "bench"))
    made.add_typer(bench, name="bench")
    atlas = typer.Typer(help="What can be done with an atlas.", no_args_is_help=True)
    atlas.command()(export)
    atlas.command("verify")(verify_an_atlas)
    made.add_typer(atlas, name="atlas")
    return made


def root(version: Version = False) -> None:
    """Counterfactual explanations of image classifiers."""


def train(config: ConfigFile, overrides: Overrides = None) -> None:
    """Train a network; any key of the file can be overridden: --optimizer.lr 3e-4."""
    from cfx.commands.config import another_verb, read_for
    from cfx.core.errors import CfxError
    from cfx.runtime.config import split_overrides
    from cfx.training.__main__ import main
    from cfx.training.config import TrainConfig

    try:
        if another_verb(TrainConfig, config) is not None:
            read_for(TrainConfig, config, split_overrides(overrides or []))
    except CfxError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    raise typer.Exit(main([str(config), *(overrides or [])]))


def config(verb: Words = None) -> None:
    """Print every key of a configuration with type, default and meaning: cfx config explain."""
    from cfx.commands.config import configuration
    from cfx.core.errors import CfxError

    try:
        typer.echo(configuration(verb or ()), nl=False)
    except CfxError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def init(folder: ImageFolder, out: OutFolder = Path(), name: RunName = None) -> None:
    """Write commented configurations for the images of a folder: generator, classifier, explanation."""
    from cfx.commands.init import init
    from cfx.core.errors import CfxError

    try:
        typer.echo(init(folder, out, name))
    except CfxError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def export(
    atlas: Annotated[Path, typer.Argument(help="Folder of an atlas, such as runs/mine/atlas.zarr.")],
    nifti: Annotated[Path | None, typer.Option(help="New folder for NIfTI files, a folder a row.")] = None,
    native: Annotated[bool, typer.Option("--native", help="In the original files' grid and intensities.")] = False,
    png: Annotated[Path | None, typer.Option(help="New folder for PNG pictures, a folder a row.")] = None,
) -> None:
    """Write every row as files: input, counterfactual, difference, edited region; or drawn masks and their maps."""
    from cfx.commands.atlas import export, opened
    from cfx.core.errors import CfxError

    try:
        with _warned():
            rows = export(atlas, nifti=nifti, native=native, png=png)
            names = ", ".join(opened(atlas)[1].names)
    except CfxError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    places = " and ".join(str(folder) for folder in (nifti, png) if folder is not None)
    typer.echo(f"wrote {names} of {len(rows)} rows into {places}")


def check(config: ConfigFile, overrides: Overrides = None) -> None:
    """Read a batch, ask the networks, time a step: what a configuration would do. Exit code 1 if something is odd."""
    from cfx.commands.check import check
    from cfx.core.errors import CfxError
    from cfx.runtime.config import split_overrides

    try:
        words, problems = check(config, split_overrides(overrides or []))
    except CfxError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(words)
    typer.echo("problems    " + ("none found" if not problems else f"{len(problems)}:"))
    for problem in problems:
        typer.echo(f"warning: {problem}", err=True)
    raise typer.Exit(1 if problems else 0)


def verify(
    path: Annotated[Path, typer.Argument(help="Folder of a checkpoint, a training state or an atlas.")],
) -> None:
    """Read everything, and name what is damaged, gone or out of its place. Exit code 1 if anything is."""
    from cfx.commands.verify import verify

    _tell(*verify(path))


def verify_an_atlas(path: Annotated[Path, typer.Argument(help="Folder of an atlas.")]) -> None:
    """Read everything, and name what is damaged, gone or out of its place. Exit code 1 if anything is."""
    from cfx.commands.verify import verified_atlas

    _tell(*verified_atlas(path))


def _tell(words: str, faults: Sequence[str]) -> None:
    """What was read, and what is wrong with it."""
    typer.echo(words)
    for fault in faults:
        typer.echo(f"error: {fault}", err=True)
    raise typer.Exit(1 if faults else 0)


def add(group: typer.Typer, name: str, verb: Verb, before: Sequence[str] = ("cfx",)) -> None:
    """Put a verb into a group of commands.

    Args:
        group: The group.
        name: What it is called.
        verb: What it does.
        before: The words in front of its name.
    """
    group.command(name, help=verb.help, context_settings=_UNKNOWN)(
        _fixed(verb) if verb.config else _asked(verb, (*before, name))
    )


def _asked(verb: Verb, words: Sequence[str]) -> Callable[..., None]:
    def run(config: ConfigFile, overrides: Overrides = None) -> None:
        _run(verb, config, overrides or [], shlex.join([*words, str(config), *(overrides or [])]))

    return run


def _fixed(verb: Verb) -> Callable[..., None]:
    def run(overrides: Overrides = None) -> None:
        from cfx.runtime.shipped import located

        _run(verb, located(str(verb.config)), overrides or [], "")

    return run


def _run(verb: Verb, path: Path, overrides: Sequence[str], words: str) -> None:
    """Read the configuration, run, and print what the verb says, once; an error of cfx is one line and exit code 2."""
    from cfx.commands.config import read_for
    from cfx.core.errors import CfxError
    from cfx.runtime.config import split_overrides
    from cfx.runtime.shares import is_main, leave

    try:
        with _warned():
            model, command = verb.load()
            text = command(read_for(model, path, split_overrides(overrides)), words)
    except CfxError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted; what is finished is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from error
    if is_main():
        typer.echo(text)
    leave()


@contextmanager
def _warned() -> Iterator[None]:
    """Warnings of cfx as one line each, said once and by the main process."""
    from cfx.core.errors import CfxWarning
    from cfx.runtime.shares import is_main

    with warnings.catch_warnings():
        warnings.simplefilter("once", CfxWarning)
        usual = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int,
            file: TextIO | None = None, line: str | None = None,
        ) -> None:  # fmt: skip
            if not issubclass(category, CfxWarning):
                usual(message, category, filename, lineno, file, line)
            elif is_main():
                typer.echo(f"warning: {message}", err=True)

        warnings.showwarning = show
        yield


app = build()
