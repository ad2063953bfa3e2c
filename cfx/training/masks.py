"""Training of networks that draw masks (`cfx.models.samplers`): each has its own loss, this hands it the readers."""

import warnings
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor, nn

from cfx.core.cohort import Cohort, Source
from cfx.core.denoiser import check_divisible
from cfx.core.errors import CfxWarning, InputError
from cfx.core.overlap import overlaps, within
from cfx.models import build
from cfx.models.samplers.sampler import Draw, MaskSampler
from cfx.training.augment import AugmentConfig, augment, moved
from cfx.training.objectives import Batch, NetworkConfig, Networks, Scores, data_keywords, whole_batches

_DRAWS, _HELD = 4, 64  # masks of each held-out image, and images, that are compared with the readers'
_EVALUATIONS = 16_384  # of the network that this may take: fewer images of a sampler of many steps
_COLLAPSED = 0.1  # of the readers' diversity


class MasksConfig(AugmentConfig):
    """What several readers drew, as a distribution."""

    trains: ClassVar[str] = "mask-sampler"

    kind: Literal["masks"]
    """Which objective this is."""
    region: Literal["readings", "lesion", "mask"] = "readings"
    """Which masks of the cohort: those of its readers, or one alone."""
    readers: Literal["all", "majority"] = "all"
    """All readers' masks, or the one that most readers have voxel by voxel."""
    classes: int = Field(default=2, ge=2, le=256)
    """Labels a voxel may have, the background included."""

    def target(self, cohort: Cohort) -> UInt8[Tensor, "n r *space"]:
        """Masks of the readers.

        Raises:
            InputError: the cohort has none, or class numbers beyond `classes`.
        """
        masks = getattr(cohort, self.region)
        if masks is None:
            raise InputError(f"cohort.{self.region}: expected masks to train on, got none")
        labels: Tensor = masks.to(torch.uint8)
        if labels.numel() and int(labels.max()) >= self.classes:
            raise InputError(
                f"cohort.{self.region}: expected class numbers 0 .. {self.classes - 1}, got {int(labels.max())}; "
                "say how many there are: objective.classes"
            )
        return majority(labels, self.classes) if self.readers == "majority" else labels

    def make(self, network: NetworkConfig, cohort: Source, steps: int) -> "MasksObjective":
        """Masks of the cohort's images; errors as `target`."""
        self.target(cohort[:1])
        return MasksObjective(self, network, cohort.shape)


class MasksObjective:
    """The loss that a network that draws masks has itself.

    Args:
        config: The objective.
        network: The network to train.
        shape: Shape `(c, *space)` of the images.
    """

    def __init__(self, config: MasksConfig, network: NetworkConfig, shape: tuple[int, ...]) -> None:
        """See the class."""
        self.config, self.name, self.shape = config, network.name, shape
        self.network_config = data_keywords(network, shape) | {"classes": config.classes}

    def players(self) -> dict[str, nn.Module]:
        """The network.

        Raises:
            InputError: images of a size that it cannot halve as often as it does.
        """
        network = cast(MaskSampler, build(self.name, **self.network_config))
        check_divisible("data", self.shape[1:], network.multiple)
        return {"main": network}

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Mean loss of augmented images, the masks moved along."""
        assert batch.y is not None
        readings = moved(self.config, batch.y, batch)
        each, scores = networks[player](augment(self.config, batch), readings, Draw(batch.seed, batch.slot))
        return each.mean(), dict(scores)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Mean loss; of some images how far draws are from the readers, and their diversity beside the readers'.

        Warns:
            CfxWarning: the draws hardly differ where the readers do.
        """
        sampler, losses = cast(MaskSampler, network), []
        for batch in whole_batches(self.config, network, cohort, seed):
            assert batch.y is not None
            losses.append(sampler(batch.x, batch.y, Draw(seed, batch.slot))[0])
        figures = {"loss": float(torch.cat(losses).mean())} | self._compared(sampler, cohort, seed)
        if figures.get("diversity_ratio", 1.0) < _COLLAPSED:
            warnings.warn(
                f"collapse: two draws differ by {figures['diversity']:.3f} (1 - IoU) on average where two readers "
                f"differ by {figures['reader_diversity']:.3f}; this network says little of what experts would draw",
                CfxWarning,
                stacklevel=2,
            )
        return figures

    def _compared(self, sampler: MaskSampler, cohort: Source, seed: int) -> dict[str, float]:
        """Squared generalised energy distance, free of bias in both, and both diversities."""
        held = min(_HELD, len(cohort), max(1, _EVALUATIONS // (_DRAWS * sampler.nfe)))
        rows = torch.linspace(0, len(cohort) - 1, held).long()
        part = cohort[rows]
        readings = self.config.target(part)
        device = next(sampler.parameters()).device
        code = tuple(v.repeat_interleave(_DRAWS, 0) for v in sampler.encode(part.x.to(device)))
        counters = torch.arange(len(part) * _DRAWS, device=device)
        drawn = sampler.draw(code, seed=seed, row=counters).cpu().unflatten(0, (len(part), _DRAWS))
        among = float(within(_apart(drawn, drawn), "u").mean())
        if readings.shape[1] < 2:
            return {"diversity": among}
        across, theirs = _apart(drawn, readings), float(within(_apart(readings, readings), "u").mean())
        figures = {"ged_debiased": 2 * float(across.mean()) - among - theirs, "diversity": among}
        return figures | {"reader_diversity": theirs} | ({"diversity_ratio": among / theirs} if theirs else {})

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The network, with the names of its labels where there is one region."""
        region = "region" if self.config.region == "readings" else self.config.region
        names = ("background", region) if self.config.classes == 2 else ()
        return network, {"shape": self.shape, "classes": names}


def majority(readings: UInt8[Tensor, "n r *space"], classes: int) -> UInt8[Tensor, "n 1 *space"]:
    """The label that most readers gave each voxel; of equally many the higher, so half of the readers are enough."""
    votes = torch.stack([(readings == k).sum(1) for k in range(classes)], 1)
    return (classes - 1 - votes.flip(1).argmax(1, keepdim=True)).to(torch.uint8)


def _apart(a: Tensor, b: Tensor) -> Float[Tensor, "n s r"]:
    """1 - IoU of what is not background, of all pairs."""
    return 1 - overlaps(a != 0, b != 0).iou
