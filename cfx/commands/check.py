"""`cfx check CONFIG`: what a run would see and how long it would take, before it is started.

Images are read, networks asked, one step or row timed; nothing is written.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from cfx.commands.audit import AuditConfig, ready_for
from cfx.commands.config import verb_of
from cfx.commands.explain import ExplainConfig, images_of, task_of
from cfx.commands.networks import DetectorConfig, Networks, opened
from cfx.commands.ood import OodConfig, looked
from cfx.commands.segment import SegmentConfig
from cfx.commands.segment import looked as drawn
from cfx.core.cohort import Cohort, Source, spread, subjects
from cfx.core.denoiser import Generative, Latent
from cfx.core.errors import CfxError, CfxWarning, InputError
from cfx.counterfactual.standing import look
from cfx.data import open_cohort
from cfx.models.competence import competence
from cfx.models.doubts import Doubts
from cfx.models.goal import recognised
from cfx.models.judge import Judge
from cfx.models.opening import Described, Role, open_network
from cfx.models.running import ask, at_rest
from cfx.runtime.config import RunConfig, read_as
from cfx.training.config import TrainConfig
from cfx.training.loop import rehearse

_SEEN, _ASKED = 64, 256  # images whose values are looked at, and that the classifier is asked about
_IMAGES = ("data", "reference", "donors", "validation")


def check(path: Path, overrides: Mapping[str, str]) -> tuple[str, list[str]]:
    """What a configuration would do.

    Args:
        path: A configuration of any verb; its keys tell which.
        overrides: Dotted keys with their values.

    Returns:
        A line of words for each thing looked at, and the problems found, none of which forbids the run.

    Raises:
        CfxError: what would stop the run.
    """
    verb, model = verb_of(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CfxWarning)
        lines = list(_looked(verb, read_as(model, path, overrides)))
    problems = list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, CfxWarning)))
    return "\n".join(f"{name:<11} {words}" for name, words in lines), problems


def _looked(verb: str, config: RunConfig) -> Iterator[tuple[str, str]]:
    """What was looked at, in words, one thing after another."""
    yield "verb", f"cfx {verb}"
    found, networks = _opened(config)
    yield from ((name, _images(source)) for name, source in found.items())
    yield from ((name, _network(network)) for name, network in networks.items())
    if isinstance(config, TrainConfig):
        yield from _training(config)
    if isinstance(config, OodConfig):
        yield "to score", looked(config, found["data"], networks)
        return
    if isinstance(config, SegmentConfig):
        yield "to draw", drawn(config, found["data"], networks["segmenter"])
        return
    for name in (n for n in networks if n.startswith("classifier") and "data" in found):
        yield "accuracy", _accuracy(networks[name], networks.get("generator"), found)
    if isinstance(config, ExplainConfig):
        yield "to explain", _explanation(config, found["data"], networks)
        yield "judged", _standing(config, found["data"], networks)
    if isinstance(config, AuditConfig) and config.classifiers:
        yield "to audit", _audit(config, [f for name, f in networks.items() if name.startswith("classifier")])


def _opened(config: RunConfig) -> tuple[dict[str, Source], dict[str, nn.Module]]:
    """The images and the networks that a configuration names.

    Raises:
        CfxError: what cannot be opened, all of it in one message.
    """
    found, networks, faults = dict[str, Source](), dict[str, nn.Module](), list[CfxError]()
    for name in _IMAGES:
        if isinstance(getattr(config, name, None), BaseModel):
            try:
                found[name] = open_cohort(getattr(config, name))
            except CfxError as error:
                faults.append(error)
    for name, described, opening in _named(config):
        try:
            networks[name] = opening(described)
        except CfxError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise InputError("; ".join(map(str, faults)))
    return found, networks


def _explanation(config: ExplainConfig, data: Source, networks: Mapping[str, Any]) -> str:
    """How many images would be explained, once all that a run checks before its first image is right.

    Raises:
        InputError: networks, images, target or reference that do not go together.
    """
    source, reference = images_of(config, data)
    for depth in config.depths:
        task_of(config, depth, source, reference, networks).checked(torch.device("cpu"))
    if isinstance(networks.get("generator"), Generative):
        _denoise(networks["generator"], source[[0]].x)
    return f"{len(source)} images by {config.method}, {' and '.join(config.depths)}"


def _standing(config: ExplainConfig, data: Source, networks: Mapping[str, Any]) -> str:
    """Whether the run may be judged, by what is known before its first image."""
    (source, reference), judge = images_of(config, data), Judge(networks["classifier"])
    answers = recognised(judge, reference)
    found = look(judge, networks.get("generator"), source, reference, answers, anyway=config.judge_anyway)
    return "; ".join(["yes" if found.judged else "no", *found.reasons.values(), *found.remarks.values()])


@torch.no_grad()
def _denoise(generator: Any, x: Tensor) -> None:  # noqa: ANN401 - a generator is more than a module
    """Have a generator denoise one image at the highest level of noise.

    Raises:
        InputError: it cannot take such images.
    """

    def denoised(v: Tensor) -> Tensor:
        z = generator.encode(v) if isinstance(generator, Latent) else v
        mean: Tensor = generator(z, generator.schedule.T).mean
        return generator.decode(mean) if isinstance(generator, Latent) else mean

    try:
        with at_rest(generator):
            ask(denoised, x)
    except InputError as error:
        raise InputError(f"generator: {error}") from error


def _audit(config: AuditConfig, networks: list[nn.Module]) -> str:
    """How many images would be audited, once all that an audit checks before it measures is right.

    Raises:
        InputError: images, plan and networks that do not go together.
    """
    ready = ready_for(config, networks)
    return f"{len(ready.images)} images for {config.plan.confounder} in {len(networks)} networks"


def _named(config: RunConfig) -> Iterator[tuple[str, Described, Callable[[Described], nn.Module]]]:
    """Networks that a configuration names, each with what opens it."""
    if isinstance(config, Networks):
        yield from ((key, network, partial(opened, key)) for key, network in config.named())
        return
    for role in get_args(Role):
        if described := getattr(config, role, None):
            yield role, described, partial(open_network, role=role)
    for k, described in enumerate(getattr(config, "classifiers", ()), start=1):
        yield f"classifier {k}", described, open_network
    for part in ("gate", "detector"):
        if isinstance(beside := getattr(config, part, None), DetectorConfig):
            yield from ((f"{part}.{key}", network, partial(opened, key)) for key, network in beside.named())


def _some(source: Source, most: int) -> Cohort:
    """Evenly spread rows of a source."""
    return source[spread(len(source), most)]


def _images(source: Source) -> str:
    """What images are, in words."""
    x = _some(source, _SEEN).x
    shape = " x ".join(map(str, source.shape))
    words = [f"{len(source)} images, {shape}, values {float(x.min()):.2f} to {float(x.max()):.2f}"]
    words.append(_labels(source))
    groups = subjects(source)
    words += [] if groups is None else [f"{len(groups.unique())} subjects"]
    words += [f"covariates {', '.join(source.covariates)}"] if source.covariates else []
    return "; ".join(words)


def _labels(source: Source) -> str:
    """Classes with their counts, in words."""
    y = source.y
    if y is None:
        return "no labels"
    if y.ndim == 2:
        return "findings " + ", ".join(f"{_name(source, k)} {int(n)}" for k, n in enumerate(y.sum(0)))
    return "classes " + ", ".join(f"{_name(source, k)} {int((y == k).sum())}" for k in y.unique().tolist())


def _name(source: Source, k: int) -> str:
    return f"{k} ({source.classes[k]})" if k < len(source.classes) else str(k)


def _network(network: nn.Module) -> str:
    """What a network is, in words."""
    count = sum(p.numel() for p in network.parameters())
    words = f"{type(network).__name__}, {count / 1e6:.2f} M parameters"
    shape, classes = getattr(network, "shape", None), getattr(network, "classes", None)
    words += f", images {' x '.join(map(str, shape))}" if shape else ""
    return words + (f", knows {classes} classes" if isinstance(classes, int) else "")


def _accuracy(classifier: nn.Module, generator: nn.Module | None, found: Mapping[str, Source]) -> str:
    """How good a classifier is, and all doubts about it and the images."""
    judge, images = Judge(classifier), _some(found["data"], _ASKED)
    logits = judge.answers(images.x)
    labels = judge.labels(images.y)
    Doubts(judge, generator, len(images), labels, subjects(images)).look(images.x, logits, torch.arange(len(images)))
    judge.check(images.x[:1], logits[:1])
    shares = [f"{k}: {int(n)}" for k, n in enumerate(torch.bincount(logits.argmax(1), minlength=logits.shape[1]))]
    words = f"decides {', '.join(shares)} of {len(images)} images"
    of = "reference" if "reference" in found else "data"
    known = competence(classifier, _some(found[of], _ASKED))
    return f"{words}; on {of}: {known}" if known else f"{words}; accuracy not known: no labels of two classes"


def _training(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """What would be trained, and how long that takes here."""
    run = rehearse(config)
    yield "held out", "none" if run.held_out is None else _images(run.held_out)
    yield from ((name, _network(network)) for name, network in run.networks.items())
    yield (
        "time",
        f"{run.seconds:.2f} s a step here, {config.steps} steps: about {_duration(run.seconds * config.steps)}",
    )


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
