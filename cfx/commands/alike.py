"""One numbering of classes for all that a command reads: networks, images, and the images beside them."""

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from cfx.core.cohort import Cohort, Source
from cfx.core.errors import InputError
from cfx.data.classes import check_named, numbered_alike
from cfx.models import read_manifest
from cfx.models.checkpoint import MANIFEST
from cfx.models.opening import Network, NetworkSpec, spec_of

Images = TypeVar("Images", bound=Source)


def network_classes(networks: Mapping[str, Network | None]) -> tuple[str, ...]:
    """The classes of networks in label order, as far as they name any: those of the first that does.

    Args:
        networks: Descriptions by what they are called in error messages. Classes are named by `output`, or by the
            manifest of a cfx folder; findings and values are no classes.

    Raises:
        InputError: two of them have the same classes in another order.
        CheckpointError: a manifest is damaged.
    """
    first, classes = "", tuple[str, ...]()
    for name, spec in networks.items():
        own = () if spec is None else _named(spec_of(spec))
        if own and not classes:
            first, classes = name, own
        elif own != classes and set(own) == set(classes):
            raise InputError(f"{name}: its classes are {own}, those of {first} {classes}: the same in another order")
    return classes


def _named(spec: NetworkSpec) -> tuple[str, ...]:
    """The classes of one network, in label order; empty where nothing names them."""
    kind = None if spec.output is None else spec.output.kind
    if spec.output is not None and (spec.output.classes or kind in ("multilabel", "regression")):
        return spec.output.classes if kind in ("logits", "binary") else ()
    if spec.imports or not (spec.place / MANIFEST).is_file():
        return ()
    manifest = read_manifest(spec.place)
    return manifest.classes if manifest.kind == "classifier" and not manifest.multilabel else ()


def alike(
    source: Images,
    other: Cohort | None,
    classes: Sequence[str],
    beside: str = "reference",
    configs: Sequence[object] = (),
) -> tuple[Images, Cohort | None]:
    """Images and those beside them numbered by the classes of the networks, or alike where these name none.

    Args:
        source: Images.
        other: Images beside them, or None.
        classes: Names of the classes of the networks in label order, or empty.
        beside: What the others are, for the error message.
        configs: Where the images and the others come from.

    Raises:
        InputError: as `numbered_alike`, and `check_named` where no network names a class.
    """
    given = {"data": source} | ({} if other is None else {beside: other})
    if not classes:
        check_named(given, dict(zip(("data", beside), configs, strict=False)))
    found = numbered_alike(given, classes, "the classifier")
    return cast(Images, found["data"]), cast(Cohort | None, found.get(beside))  # what is in memory stays there
