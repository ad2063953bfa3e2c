"""A generator of masks trained by an energy score: whoever draws as the readers do has the least.

With S, S' two masks drawn for an image and Y that of a reader,

    loss = E d(S, Y) - 1/2 E d(S, S'),   d(a, b) = 1 - <a, b> / (|a|^2 + |b|^2 - <a, b>)

d is one less the Tanimoto similarity, for masks of zeros and ones 1 - IoU. The similarity is a positive definite
kernel, so the score is proper: on average it is least for the readers' own distribution, and what it exceeds that by
is half the squared generalised energy distance. So what segmentations are judged by is what is minimised, with draws
that are still soft. Every reader and every pair of draws enters, without bias: m draws and r readers make
mr + m(m - 1) / 2 distances.

Whether there is anything to draw is drawn first, from a head of its own: of its cross-entropy with the share of empty
readers the best is the true probability. The score is then that of the readers who drew something. A third term, the
cross-entropy of one map with the readers' mean, has no part in a draw; early on, when no mask of the generator meets
one of a reader, it alone tells the trunk where things are.

A trunk looks at an image once. A draw is a perceptron for every patch of two voxels to a side, fed by what the trunk
says there and by noise, whose gains the trunk says too. The noise is shared: some by the whole image, some by blocks of
16, 8 and 4 voxels to a side, so that an outline moves as a whole and in parts.

Where a loss is nearly flat a generator is careless: a voxel far away that one draw in a thousand has costs it nothing,
but seven in ten masks then hold such specks, and two in a hundred of the readers' masks are in pieces. So what is drawn
is the likeliest class by probabilities that are smoothed over the neighbouring voxels, and nothing where the one map
says that fewer than a hundredth of the readers have anything: four in a hundred masks are then in pieces, and the
distance to the readers is the same.

References: Gneiting, Raftery (2007) on proper scores; Gower (1971) and Bouchard, Jousselme, Dore (2013) on the kernel;
Shen, Meinshausen (2024), arXiv 2307.00835, and De Bortoli et al. (2025), arXiv 2502.02483, on generators and diffusion
trained by scores. Kohl et al. (2018) have the perceptron.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from cfx.core.broadcast import each
from cfx.core.errors import InputError
from cfx.core.geometry import smooth
from cfx.core.random import normal, uniform
from cfx.models.layers import convolution
from cfx.models.patches import depth_to_space, space_to_depth
from cfx.models.samplers.conditioned import one_hot, with_background
from cfx.models.samplers.sampler import Code, Draw, MaskSampler
from cfx.models.unet import PatchUnet

_HEAD = 8  # features at full resolution inside the trunk
_BLUR = 0.85  # voxels over which a draw is smoothed
_SHARE = 0.01  # of the readers that has a voxel, below which none is drawn
_PATCH = 2  # voxels to a side that a perceptron speaks for
_EXISTS, _NOISE = 70, 72  # streams; noise takes one a scale
_MAP = 10.0  # weight of the mean cross-entropy of a voxel, most of which are background
_SMOOTH = 0.5  # voxels, added above and below: two empty masks are equal


class Energy(MaskSampler):
    """See the page."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        classes: int = 2,
        patch: int = 4,
        channels: Sequence[int] = (32, 64),
        attention: Sequence[bool] = (False, True),
        features: int = 12,
        hidden: int = 32,
        draws: int = 6,
        scales: Sequence[int] = (16, 8, 4),
        noise: int = 4,
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            classes: Labels a voxel may have, background included.
            patch: Side of a patch of the trunk, see `PatchUnet`.
            channels: Width of each level of the trunk.
            attention: Whether each level has self-attention.
            features: Numbers a voxel that the trunk hands on.
            hidden: Width of the perceptron.
            draws: Masks drawn of an image in training, two at least.
            scales: Sides in voxels of the blocks that share noise.
            noise: Numbers of noise that the whole image shares, and that each block of every scale shares.

        Raises:
            InputError: fewer than two draws, or classes or dimensions out of range.
        """
        super().__init__(classes)
        if draws < 2:
            raise InputError(f"draws: expected two at least, got {draws}")
        self.draws, self.scales, self.noise, self.dims = draws, tuple(scales), noise, spatial_dims
        self.trunk = PatchUnet(spatial_dims, in_channels, features, patch, channels, attention, features=_HEAD)
        self.trunk.out.reset_parameters()  # type: ignore[operator]
        self.multiple = self.trunk.multiple
        conv, cells = convolution(spatial_dims), _PATCH**spatial_dims
        self.seen = conv(features * cells, 2 * hidden, 1)
        self.mixed = conv(noise * (1 + len(self.scales)), hidden, 1, bias=False)
        self.perceptron = nn.Sequential(
            nn.SiLU(), conv(hidden, hidden, 1), nn.SiLU(), conv(hidden, (classes - 1) * cells, 1)
        )
        self.exists = nn.Sequential(nn.Linear(3 * features, hidden), nn.SiLU(), nn.Linear(hidden, 1))
        self.mean = conv(features, classes - 1, 1)

    def forward(
        self, x: Float[Tensor, "b c *space"], readings: UInt8[Tensor, "b r *space"], draw: Draw
    ) -> tuple[Float[Tensor, " b"], Mapping[str, Tensor]]:
        """The energy score of the readers who drew something, and the two cross-entropies."""
        h = self._features(x)
        seen, exists, _ = self._of(h)
        some = readings.flatten(2).any(2).to(h)
        row = draw.slot[:, None] * self.draws + torch.arange(self.draws, device=x.device)
        drawn = self._logits(seen.repeat_interleave(self.draws, 0), draw.seed, row.flatten())
        soft = with_background(drawn).softmax(1)[:, 1:].unflatten(0, (len(x), self.draws)).flatten(3)
        truth = masks_of(readings, self.classes).to(h)
        score = energy_score(soft, truth, some)
        entropy = functional.binary_cross_entropy_with_logits(exists, some.mean(1), reduction="none")
        share = truth.mean(1)
        logits = with_background(self.mean(h).flatten(2))
        mapped = -(torch.cat([1 - share.sum(1, keepdim=True), share], 1) * logits.log_softmax(1)).sum(1).mean(1)
        scores = {"energy": score.detach().mean(), "existence": entropy.detach().mean(), "map": mapped.detach().mean()}
        return score + entropy + _MAP * mapped, scores

    def encode(self, x: Float[Tensor, "b c *space"]) -> Code:
        """Offsets and gains of every patch, log-odds that a reader draws anything, and what share of them has a voxel.

        Shaped `(b, 2 * hidden, *coarse)`, `(b,)` and `(b, 1, *space)`.
        """
        return self._of(self._features(x))

    def _features(self, x: Tensor) -> Tensor:
        h: Tensor = self.trunk(x, torch.zeros(len(x), dtype=torch.long, device=x.device))
        return h

    def _of(self, h: Tensor) -> Code:
        share = with_background(self.mean(h)).softmax(1)[:, 1:].sum(1, keepdim=True)
        weight = share.flatten(2)
        inside = (h.flatten(2) * weight).sum(2) / weight.sum(2).clamp_min(_SMOOTH)
        pooled = torch.cat([inside, h.flatten(2).mean(2), h.flatten(2).amax(2)], 1)
        return self.seen(space_to_depth(h, _PATCH)), self.exists(pooled)[:, 0], share

    def draw(self, code: Code, *, seed: int, row: Int[Tensor, " b"]) -> UInt8[Tensor, "b *space"]:
        """Whether there is anything, and what it looks like."""
        seen, exists, share = code
        nothing = uniform((), seed=seed, row=row, stream=_EXISTS) >= exists.sigmoid()
        p = smooth(with_background(self._logits(seen, seed, row)).softmax(1), _BLUR)
        labels = p.argmax(1).to(torch.uint8)
        return labels.masked_fill(each(nothing, labels) | (share[:, 0] < _SHARE), 0)

    def _logits(self, seen: Tensor, seed: int, row: Tensor) -> Float[Tensor, "b k *space"]:
        """Of the foreground classes, one draw of each row."""
        offset, gain = seen.chunk(2, 1)
        h = self.perceptron(offset + gain * self.mixed(self._noise(seen, seed, row)))
        return depth_to_space(h, _PATCH, self.dims)

    def _noise(self, seen: Tensor, seed: int, row: Tensor) -> Float[Tensor, "b z *coarse"]:
        """Normals that a patch shares with all others, and with those of its blocks."""
        space = seen.shape[2:]
        parts = [normal((self.noise, *[1] * self.dims), seed=seed, row=row, stream=_NOISE).expand(-1, -1, *space)]
        mode = {2: "bilinear", 3: "trilinear"}[self.dims]
        for k, side in enumerate(self.scales, 1):
            grid = tuple(-(-s * _PATCH // side) for s in space)
            coarse = normal((self.noise, *grid), seed=seed, row=row, stream=_NOISE + k)
            parts.append(functional.interpolate(coarse, size=space, mode=mode))
        return torch.cat(parts, 1).to(seen)


def masks_of(readings: UInt8[Tensor, "b r *space"], classes: int) -> Float[Tensor, "b r k voxels"]:
    """Masks of every foreground class."""
    each_reader = one_hot(readings.flatten(2).flatten(0, 1), classes)[:, 1:]
    return each_reader.reshape(*readings.shape[:2], *each_reader.shape[1:])


def energy_score(
    draws: Float[Tensor, "b m k v"], readers: Float[Tensor, "b r k v"], weight: Float[Tensor, "b r"]
) -> Float[Tensor, " b"]:
    """The energy score of draws, mean over readers of this weight each; without bias in the number of draws.

    Args:
        draws: Soft masks of the foreground classes, two draws at least.
        readers: Masks of the readers.
        weight: Of every reader; zero leaves one out.
    """
    m = draws.shape[1]
    across = tanimoto_distance(draws, readers).mean(1)
    among = tanimoto_distance(draws, draws).sum((1, 2)) / (m * (m - 1))
    return (weight * (across - among[:, None] / 2)).mean(1)


def tanimoto_distance(a: Float[Tensor, "b m k v"], b: Float[Tensor, "b r k v"]) -> Float[Tensor, "b m r"]:
    """Of every pair, mean over classes; 1 - IoU of zeros and ones, but for half a voxel that all share."""
    a, b = a.transpose(1, 2), b.transpose(1, 2)
    both = a @ b.mT + _SMOOTH
    one, other = (v.square().sum(3) + _SMOOTH for v in (a, b))
    distance: Tensor = 1 - both / (one[..., None] + other[:, :, None] - both)
    return distance.mean(1)
