"""Distances between images in feature space: features of a named classifier, or LPIPS where it is installed.

Reference: Zhang, Isola, Efros, Shechtman, Wang (2018), "The unreasonable effectiveness of deep features as a
perceptual metric". Only lpips with trained weights is called LPIPS here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import CheckpointError
from cfx.models.classifiers import freeze
from cfx.models.features import FeatureMaps


class FeatureDistance(nn.Module):
    """Squared distance of channel-normalised feature maps of a classifier, averaged over space, summed over stages.

    Args:
        classifier: A trained network of this package (`cnn`, `convnext`, `densenet`), or any other with `layers`. It is
            frozen.
        name: What the distance is called in reports.
        layers: Layers whose maps are compared, as in `cfx.models.features.FeatureMaps`.

    Raises:
        InputError: the classifier has no feature maps.
    """

    def __init__(self, classifier: nn.Module, name: str = "feature distance", *, layers: Sequence[str] = ()) -> None:
        """See the class."""
        super().__init__()
        self.maps = FeatureMaps(classifier, layers)
        self.name = name
        freeze(classifier)

    def forward(self, a: Float[Tensor, "b c *space"], b: Float[Tensor, "b c *space"]) -> Float[Tensor, " b"]:
        """Distance of each pair of images in [-1, 1]; 0 for equal ones, differentiable."""
        pairs = zip(self.maps(a), self.maps(b), strict=True)
        return torch.stack([feature_gap(u, v).reshape(len(u), -1).mean(1) for u, v in pairs]).sum(0)


def feature_gap(u: Float[Tensor, "b d *space"], v: Float[Tensor, "b d *space"]) -> Float[Tensor, "b *space"]:
    """Squared distance of two maps, or vectors, at every place, each divided by its length over the channels there."""
    u, v = (f / (f.square().sum(1, keepdim=True) + 1e-10).sqrt() for f in (u, v))
    return (u - v).square().sum(1)


class Lpips(nn.Module):
    """LPIPS for images in [-1, 1] of one or three channels; volumes are measured slice by slice along the first axis.

    Args:
        net: Backbone.
        weights: File with the backbone's state dict (as torchvision publishes it); None takes torch hub's cache.

    Raises:
        CheckpointError: lpips or torchvision is missing or broken, or the backbone's weights are not there.
    """

    name = "LPIPS"

    def __init__(self, net: Literal["alex", "vgg", "squeeze"] = "alex", weights: str | Path | None = None) -> None:
        """See the class."""
        super().__init__()
        module = _import_lpips()
        found = _cached_backbone(net) if weights is None else Path(weights)
        if found is None or not found.is_file():
            raise CheckpointError(
                f"weights of the {net} backbone: expected a local file, "
                f"got {found or 'nothing in the torch hub cache'}; "
                "pass weights=..., or use FeatureDistance with a named classifier"
            )
        metric = module.LPIPS(net=net, pnet_rand=True, verbose=False)  # type: ignore[attr-defined]
        _load_backbone(metric, found)
        self.metric = freeze(metric)

    def forward(self, a: Float[Tensor, "b c *space"], b: Float[Tensor, "b c *space"]) -> Float[Tensor, " b"]:
        """LPIPS of each pair."""
        if a.ndim == 5:
            slices = [self(a[:, :, i], b[:, :, i]) for i in range(a.shape[2])]
            return torch.stack(slices).mean(0)
        a, b = (x.expand(-1, 3, *x.shape[2:]) if x.shape[1] == 1 else x for x in (a, b))
        return cast(Tensor, self.metric(a, b)).flatten()


def _import_lpips() -> object:
    """The lpips module.

    Raises:
        CheckpointError: it, or torchvision under it, cannot be imported. A torchvision built for another torch raises
            RuntimeError rather than ImportError.
    """
    try:
        import lpips
    except (ImportError, RuntimeError) as error:
        raise CheckpointError(
            "LPIPS: expected the packages lpips and torchvision, the latter built for this torch "
            f"(pip install 'cfx[perceptual]'); import failed: {error}"
        ) from error
    return cast(object, lpips)


_BACKBONES = {"alex": "alexnet-*.pth", "vgg": "vgg16-*.pth", "squeeze": "squeezenet1_1-*.pth"}


def _cached_backbone(net: str) -> Path | None:
    """The file torchvision keeps of a backbone in torch hub's cache, if it is there; nothing is downloaded."""
    found = sorted((Path(torch.hub.get_dir()) / "checkpoints").glob(_BACKBONES[net]))
    return found[0] if found else None


def _load_backbone(metric: nn.Module, path: Path) -> None:
    """Put a backbone's feature layers into the slices that lpips cuts it into (their keys keep layer numbers)."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    features = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    backbone = metric.get_submodule("net")
    wanted = {k: k.split(".", 1)[1] for k in backbone.state_dict()}
    missing = sorted(v for v in wanted.values() if v not in features)
    if missing:
        raise CheckpointError(f"{path}: expected the backbone's feature layers, missing {missing[:4]}")
    backbone.load_state_dict({k: features[v] for k, v in wanted.items()})
