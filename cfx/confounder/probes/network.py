"""A small network as the last reader of a mask: it may use what no principal component shows.

It is trained anew for every fold and every permuted target, on all training rows at once, and nothing of it is chosen
by looking at held-out rows: steps, rate and decay are fixed beforehand.
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cfx.confounder.probes.features import shares
from cfx.confounder.probes.readers import loss
from cfx.core.cohort import check_images
from cfx.core.distance import check_mask
from cfx.core.scores import class_weights
from cfx.models.registry import build


@dataclass(frozen=True)
class Network:
    """A convolutional classifier or regression of images.

    Attributes:
        image: What is read `(n, c, *space)`, in [-1, 1].
        name: What it is called.
        channels: Width of each stage; every stage halves the resolution.
        steps: Steps of Adam on all training rows.
        rate: Its rate, which falls to 0 along a cosine.
        decay: Decoupled weight decay.
        seed: Seed of the first weights; fold a has seed + a, whatever the target.
    """

    image: Float[Tensor, "n c *space"]
    name: str = "cnn"
    channels: tuple[int, ...] = (8, 16, 32)
    steps: int = 60
    rate: float = 5e-3
    decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the images."""
        check_images(self.image, "image")

    @classmethod
    def of_mask(cls, mask: Bool[Tensor, "n 1 *space"], *, cells: int = 24, seed: int = 0) -> Self:
        """A reader of masks on a grid of at most `cells` cells along an axis, of the share that each cell holds.

        Raises:
            InputError: see `cfx.core.distance.check_mask`.
        """
        check_mask(mask)
        return cls(2 * shares(mask, cells) - 1, seed=seed)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.image)

    def __call__(self, y: Float[Tensor, "m n"], fold: Int[Tensor, " n"], *, binary: bool) -> Float[Tensor, "m n"]:
        """See `cfx.confounder.probes.readers.Reader`."""
        out = torch.empty_like(y)
        for a in range(int(fold.max()) + 1):
            train = fold != a
            for target, row in zip(y, out, strict=True):
                row[~train] = self._learn(target[train], train, a, binary).double()
        return out

    def _learn(self, y: Tensor, train: Tensor, a: int, binary: bool) -> Float[Tensor, " k"]:
        """Predictions of the rows that are not trained on."""
        network = self._network(a)
        spread = torch.ones(()) if binary else y.std().float()
        goal = (y if binary else (y - y.mean()) / spread).float()
        weight = class_weights(goal).to(goal) if binary else torch.ones_like(goal)
        optimiser = torch.optim.AdamW(network.parameters(), self.rate, weight_decay=self.decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        with torch.enable_grad():
            for _ in range(self.steps):
                optimiser.zero_grad()
                (weight * loss(goal, network(self.image[train])[:, 0], binary=binary)).mean().backward()
                optimiser.step()
                schedule.step()
        with torch.no_grad():
            prediction: Tensor = network(self.image[~train])[:, 0] * spread
        return prediction

    def _network(self, a: int) -> nn.Module:
        """A network with weights of its own seed; the global generator stays as it was."""
        _, c, *space = self.image.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + a)
            return build("cnn", spatial_dims=len(space), in_channels=c, out_channels=1, channels=self.channels)
