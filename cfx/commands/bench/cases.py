"""The cases of the bench `faithful`: classifiers, the images each is asked about, and what it can have read there.

    pixel, patch                one voxel, or an edge of three, where the classes differ
    ventricles                  darkness in the middle of the brain: blind to lesions by its formula
    ventricles-, lesions-network    trained where that part of the disease follows the label and the other a coin
    tag-sum                     the margin of a classifier of the tag, and a little of that of one of the disease
    tag-q7, tag-q9              trained on the disease, with a tag that equals the label with probability .7 or .9
    artefacts                   trained on a pattern in a corner that no generator here has seen
    memorised, random-labels    trained on a few images, or on labels that a coin decided
    exchanged                   a trained classifier that numbers its classes the other way round
    untrained                   initial weights of five families, centred
    trained                     classifiers of the disease as they are

What pixel, patch and ventricles can read is exact; of trained networks it is the voxels that their factor changes.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.commands.bench.known import Centred, Dark, Exchanged, Sum, patches
from cfx.commands.bench.stock import Case, Stock, marked, only, part_changed, tossed
from cfx.core.errors import InputError
from cfx.counterfactual.metrics import CHANGED
from cfx.data import load_cohort
from cfx.data.brain import Confounder, Part
from cfx.models import build

_LOW, _HIGH = -0.5, -0.2  # fluid; lesions are brighter than `_HIGH`, but for one of their voxels in a thousand
_MIDDLE = 0.2  # the ventricles change a place by at least this share of the most they change any, to be read there
_DISEASE = 0.3  # weight of the disease beside the tag: less than flips a decision
_FEW = 24  # images that are learnt by heart
_CORNER = 0.19  # edge of an artefact, of that of the image
_INK = 0.8


def cases(stock: Stock, names: tuple[str, ...]) -> Iterator[Case]:
    """The cases of these names, each made when it is asked for."""
    return chain.from_iterable(CASES[name](stock) for name in names)


def _pixel(stock: Stock) -> Iterator[Case]:
    return _places(stock, "pixel", 1)


def _patch(stock: Stock) -> Iterator[Case]:
    return _places(stock, "patch", 3)


def _places(stock: Stock, name: str, side: int) -> Iterator[Case]:
    for k, found in enumerate(patches(stock.labelled, side, stock.places, stock.population)):
        yield stock.case(f"{name}-{k}", [Centred.on(found, stock.labelled.x)], found.reads)


def _ventricles(stock: Stock) -> Iterator[Case]:
    """Dark voxels, counted where the ventricles of the reference reach."""
    change = (part_changed(stock.brains("reference"), "ventricles") - stock.labelled.x).abs().mean(0)
    dark = Dark((change >= _MIDDLE * change.max()).float(), _LOW, _HIGH)
    yield stock.case("ventricles", [Centred.on(dark, stock.labelled.x)], dark.reads)


def _ventricles_network(stock: Stock) -> Iterator[Case]:
    yield _of_part(stock, "ventricles")


def _lesions_network(stock: Stock) -> Iterator[Case]:
    yield _of_part(stock, "lesions")


def _of_part(stock: Stock, part: Part) -> Case:
    name = f"{part}-network"
    network = stock.small(name, only(stock.brains("learn"), part))
    changed = part_changed(stock.brains("asked"), part)
    return stock.case(name, [network], _where(changed - stock.asked.x))


def _tag_sum(stock: Stock) -> Iterator[Case]:
    if stock.tag is None:
        raise InputError("tag: expected a classifier of the tag for the case tag-sum, got none")
    yield _tagged(stock, "tag-sum", Sum([stock.tag, stock.one], [1.0, _DISEASE]), 0.5, "tag")


def _tag_q7(stock: Stock) -> Iterator[Case]:
    yield _shortcut(stock, 0.7)


def _tag_q9(stock: Stock) -> Iterator[Case]:
    yield _shortcut(stock, 0.9)


def _shortcut(stock: Stock, q: float) -> Case:
    name = f"tag-q{10 * q:.0f}"
    network = stock.small(name, load_cohort(stock.brains("learn", confounders=_tag(q))))
    return _tagged(stock, name, network, q, "disease")


def _tagged(stock: Stock, name: str, network: nn.Module, q: float, label: Literal["tag", "disease"]) -> Case:
    """Images with a tag; what can be read is where the tag or the disease changes anything."""
    images, reference = (load_cohort(stock.brains(k, confounders=_tag(q), label=label)) for k in ("asked", "reference"))
    other = {k: load_cohort(stock.brains("asked", confounders=_tag(q), label=k)).x_true for k in ("tag", "disease")}
    disease, tag = other["disease"], other["tag"]
    assert disease is not None
    assert tag is not None
    truth = _where(disease - images.x) | _where(tag - images.x)
    return replace(stock.case(name, [network], truth), images=images, reference=reference, disease=disease)


def _tag(q: float) -> tuple[Confounder, ...]:
    return (Confounder(kind="tag", q=q),)


def _artefacts(stock: Stock) -> Iterator[Case]:
    for name, pattern in artefacts(tuple(stock.asked.x.shape[2:])).items():
        learn = marked(load_cohort(stock.brains("learn")), pattern, stock.population)
        images, reference = (marked(c, pattern, stock.population) for c in (stock.asked, stock.labelled))
        plain = stock.case(f"artefact-{name}", [stock.small(f"artefact-{name}", learn)], pattern != 0)
        disease = torch.where(pattern != 0, images.x, plain.disease)
        yield replace(plain, images=images, reference=reference, disease=disease)


def artefacts(space: tuple[int, ...]) -> dict[str, Float[Tensor, "1 *space"]]:
    """Patterns in the first corner, 0 elsewhere: a bright block, stripes and a checkerboard of two voxels."""
    edge = max(4, round(_CORNER * space[0]))
    corner = tuple(slice(1, 1 + edge) for _ in space)
    index = torch.stack(torch.meshgrid(*[torch.arange(n) // 2 for n in space], indexing="ij"))
    signs = {"block": torch.ones(space), "stripes": 1.0 - 2 * (index[0] % 2), "checkers": 1.0 - 2 * (index.sum(0) % 2)}
    inside = torch.zeros(space)
    inside[corner] = _INK
    return {name: (inside * sign)[None] for name, sign in signs.items()}


def _memorised(stock: Stock) -> Iterator[Case]:
    yield stock.case("memorised", [stock.small("memorised", load_cohort(stock.brains("learn"))[slice(0, _FEW)])])


def _random_labels(stock: Stock) -> Iterator[Case]:
    learn = load_cohort(stock.brains("learn"))
    yield stock.case("random-labels", [stock.small("random-labels", learn.replace(y=tossed(learn, stock.population)))])


def _exchanged(stock: Stock) -> Iterator[Case]:
    yield stock.case("exchanged", [Exchanged(stock.one)])


def _trained(stock: Stock) -> Iterator[Case]:
    for name, network in stock.trained.items():
        yield stock.case(f"trained-{name}", [network])


def _untrained(stock: Stock) -> Iterator[Case]:
    for family in FAMILIES:
        networks = [untrained(stock, family, k) for k in range(stock.untrained)]
        yield stock.case(f"untrained-{family}", networks, n=stock.few)


def untrained(stock: Stock, family: str, seed: int) -> nn.Module:
    """A network of initial weights, centred on the reference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FAMILIES[family](tuple(stock.asked.x.shape[2:])).eval()
    return Centred.on(network, stock.labelled.x)


def _registered(name: str, **keywords: object) -> Callable[[tuple[int, ...]], nn.Module]:
    return lambda space: build(name, spatial_dims=len(space), in_channels=1, out_channels=2, **keywords)


def _vit(space: tuple[int, ...]) -> nn.Module:
    """A small vision transformer of MONAI; its hidden states are left out."""
    from monai.networks.nets import ViT

    return ViT(
        in_channels=1, img_size=space, patch_size=max(4, space[0] // 8), hidden_size=48, mlp_dim=96, num_layers=3,
        num_heads=4, classification=True, num_classes=2, spatial_dims=len(space), post_activation="none",
    )  # fmt: skip


FAMILIES: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "cnn": _registered("cnn"),
    "plain": _registered("cnn", norm="none", activation="relu"),
    "convnext": _registered("convnext", channels=(16, 32, 48), depth=1),
    "densenet": _registered("densenet"),
    "vit": _vit,
}
"""Families of untrained networks."""

CASES: dict[str, Callable[[Stock], Iterator[Case]]] = {
    "pixel": _pixel,
    "patch": _patch,
    "ventricles": _ventricles,
    "ventricles-network": _ventricles_network,
    "lesions-network": _lesions_network,
    "tag-sum": _tag_sum,
    "tag-q7": _tag_q7,
    "tag-q9": _tag_q9,
    "artefacts": _artefacts,
    "memorised": _memorised,
    "random-labels": _random_labels,
    "exchanged": _exchanged,
    "untrained": _untrained,
    "trained": _trained,
}
"""Every case, or group of cases, by name."""


def _where(change: Float[Tensor, "n c *space"]) -> Tensor:
    """Voxels that a factor changes."""
    return change.abs().amax(1, keepdim=True) > CHANGED
