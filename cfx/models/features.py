"""What a network makes of images on the way to its logits: the feature maps of its stages, or of layers by name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.models.classifiers import Staged
from cfx.models.kinds import MODEL, Kind, Manifest
from cfx.models.registry import build
from cfx.models.running import here


class FeatureMaps(nn.Module):
    """A network as a function from images to its feature maps `(b, c_i, *space_i)`, early to late.

    Args:
        network: A classifier of this package, whose maps are those of its stages; or any module, with `layers`.
        layers: Names of its parts, as `named_modules` gives them; what they return is a map each, `(b, c, *space)` or
            pooled already, `(b, d)`.

    Raises:
        InputError: no layer named in a network of another package, or one that it does not have.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str] = ()) -> None:
        """See the class."""
        super().__init__()
        if not layers and not isinstance(network, Staged):
            raise InputError(
                "classifier: expected a network with feature maps (cnn, convnext, densenet), or layers=... of another, "
                f"got {type(network).__name__}"
            )
        names = [name for name, _ in network.named_modules() if name]
        if missing := [name for name in layers if name not in names]:
            raise InputError(f"layers: expected some of {names}, got {missing}")
        self.network, self.layers = network, tuple(layers)

    def forward(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """The maps, differentiably.

        Raises:
            InputError: a layer that is no map: it did not run, ran more than once, or returned something else.
        """
        if not self.layers:
            assert isinstance(self.network, Staged)
            return self.network.stages(x)
        with _watched(self.network, self.layers) as seen:
            self.network(x.clone())
        return [_map(seen[name], len(x), name) for name in self.layers]


class PooledFeatures(nn.Module):
    """A network as a function from images to one vector each: its last feature map, averaged over space.

    Of a network of this package that is what its linear head reads.

    Args:
        network: As in `FeatureMaps`.
        layer: Name of a part of a network, as in `FeatureMaps`; None for the last stage of one of this package.
    """

    def __init__(self, network: nn.Module, layer: str | None = None) -> None:
        """See the class."""
        super().__init__()
        self.maps = FeatureMaps(network, () if layer is None else (layer,))

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b d"]:
        """The vectors, differentiably; errors as `FeatureMaps.forward`."""
        last: Tensor = self.maps(x)[-1]
        return last.flatten(2).mean(2) if last.ndim > 2 else last


class Penultimate(nn.Module):
    """A classifier as a function from images to the vectors that its last layer reads, whatever is wrapped round it.

    Args:
        classifier: A classifier as `last_layer` takes it.

    Raises:
        InputError: no last layer can be seen in it.
    """

    def __init__(self, classifier: object) -> None:
        """See the class."""
        super().__init__()
        if not isinstance(classifier, nn.Module) or last_layer(classifier) is None:
            raise InputError(
                "features: expected features=... beside a classifier whose last linear layer cannot be seen, got "
                f"{type(classifier).__name__} alone; cfx.models.features.PooledFeatures(network, layer) makes some"
            )
        self.classifier = classifier

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b d"]:
        """The vectors, differentiably.

        Raises:
            InputError: the layer did not run once, or on something else than one vector an image.
        """
        head, seen = last_layer(self.classifier), list[Tensor]()
        assert head is not None
        handle = head.register_forward_pre_hook(here(lambda _, inputs: seen.append(inputs[0])))
        try:
            self.classifier(x)
        finally:
            handle.remove()
        shapes = [tuple(z.shape) for z in seen]
        if len(shapes) != 1 or len(shapes[0]) != 2 or len(seen[0]) != len(x):
            raise InputError(
                f"features: expected the classifier's last linear layer to read a vector an image, got {shapes}; "
                "give features=..."
            )
        return seen[0]


def last_layer(classifier: object) -> nn.Module | None:
    """What makes the logits: the head of a network of this package, or else the last linear layer of a module.

    Args:
        classifier: What a user handed in; it may be wrapped.

    Returns:
        None of a function, or of a module in which there is none, such as a script.
    """
    parts = list(classifier.modules()) if isinstance(classifier, nn.Module) else []
    heads = [m.head for m in parts if isinstance(m, Staged)] or [m for m in parts if isinstance(m, nn.Linear)]
    return heads[-1] if heads else None


@contextmanager
def _watched(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, list[object]]]:
    """Collect what layers return while the network runs."""
    seen: dict[str, list[object]] = {name: [] for name in layers}
    handles = [
        network.get_submodule(name).register_forward_hook(here(lambda _, __, out, found=found: found.append(out)))
        for name, found in seen.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _map(seen: Sequence[object], n: int, name: str) -> Tensor:
    """The one map a layer returned."""
    if len(seen) != 1:
        raise InputError(f"layers: expected {name} to run once an image, it ran {len(seen)} times")
    out = seen[0]
    # three axes may be channels and places or tokens and channels: they cannot be told apart
    if not isinstance(out, Tensor) or out.ndim < 2 or out.ndim == 3 or len(out) != n:
        came = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(f"layers: expected a map ({n}, c, *space) or a vector ({n}, d) of {name}, got {came}")
    return out


def _make(manifest: Manifest) -> PooledFeatures:
    """The encoder of a manifest: what the last layer of its network reads."""
    return PooledFeatures(build(manifest.name, **manifest.config))


def _parts(model: nn.Module) -> Mapping[str, nn.Module]:
    """The network, with the layer in which training compared views.

    Raises:
        InputError: not the features of a network of this package.
    """
    if not isinstance(model, PooledFeatures) or model.maps.layers:
        raise InputError(f"model: expected PooledFeatures of a network with stages, got {type(model).__name__}")
    return {MODEL: model.maps.network}


FEATURES = Kind(
    "An encoder of images: features of which likeness can be measured.",
    network="classifier",
    make=_make,
    parts=_parts,
)
