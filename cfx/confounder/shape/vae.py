"""A variational autoencoder of signed distances, started from their principal components and trained by `cfx.training`.

See `cfx.models.shape` for the network. A code is found in two steps: the encoder proposes, and a few Gauss-Newton
steps of iteratively reweighted least squares descend

    sum_v rho(x_v - D(z)_v) + w |z|^2 / 2,    rho(e) = |e| - s log(1 + |e| / s),

the negative log posterior with Fair's loss (1974) in the place of the absolute error |e| of training: quadratic for
errors far below s, because a mask knows its boundary to half a voxel and small errors are rounding that a mean, not a
median, should weigh. w is the weight of the KL term.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.confounder.shape.pca import SdfPca, as_distance, clipped, mirrored
from cfx.core.cohort import Cohort
from cfx.core.errors import CfxError, InputError
from cfx.models import load, save
from cfx.models.shape import ShapeNetwork
from cfx.training import TrainConfig, check_config, train

NAME = "shape-vae"
MODES = 128
"""Most modes a decoder has."""
KL_WEIGHT = 0.05
"""Weight w of the KL divergence in nats, relative to the absolute error summed over voxels: the scale of the Laplace
likelihood, about the mean absolute error. With 1 the prior would shrink the faint modes of coarse grids."""
_STEPS = 4  # of Gauss-Newton
_SOFT = 0.5  # s, in units of clip
_MEMORY = 1 << 25  # voxels x latents x rows handled at a time


@dataclass(frozen=True)
class ShapeVae:
    """A trained network as a codec.

    Attributes:
        network: The network, in evaluation mode.
        clip: Voxels at which distances are clipped.
    """

    kind: ClassVar[str] = "vae"

    network: ShapeNetwork
    clip: float

    @classmethod
    def fit(
        cls,
        shape: Tensor,
        k: int,
        folder: str | Path,
        *,
        mirror: int | None = None,
        steps: int = 60,
        seed: int = 0,
    ) -> Self:
        """Train on masks or signed distances `(n, 1, *space)`, starting from their principal components.

        Args:
            shape: Masks (bool) or signed distances in voxels.
            k: Numbers in a code.
            folder: Where the run leaves its state, log and checkpoint; an interrupted run is taken up again.
            mirror: Spatial axis across which the organ is symmetric: every shape counts mirrored as well.
            steps: Optimizer steps.
            seed: Seed of all randomness.

        Raises:
            InputError: as `SdfPca.fit`, or a folder with a finished run.
            CfxError: training was interrupted.
        """
        if (Path(folder) / "checkpoint").exists():
            raise InputError(f"folder: expected one without a finished run, got {folder}")
        distance = as_distance(shape)
        pca = SdfPca.whole(distance, mirror=mirror, most=max(k, MODES))
        if not 1 <= k <= len(pca.scale):
            raise InputError(f"k: expected 1 .. {len(pca.scale)} numbers, as many modes as shapes span, got {k}")
        x = mirrored(clipped(distance, pca.clip, pca.space), mirror)
        start = started(pca, x, k)
        save(Path(folder) / "start", start, name=NAME, config=start.keywords)
        done = train(_config(start.keywords, Path(folder), steps, seed), Cohort(x=x))
        if done.checkpoint is None:
            raise CfxError(f"folder: training in {folder} was interrupted at step {done.step}; fit again to resume")
        return cls(cast(ShapeNetwork, load(done.checkpoint)), pca.clip)

    @property
    def space(self) -> tuple[int, ...]:
        """Grid of the shapes."""
        return tuple(self.network.mean.shape[1:])

    @torch.no_grad()
    def encode(self, shape: Tensor) -> Float[Tensor, "n k"]:
        """The most likely codes of masks or signed distances.

        Raises:
            InputError: shapes on another grid.
        """
        x = clipped(shape, self.clip, self.space)
        rows = max(1, _MEMORY // (x[0].numel() * self.network.latent))
        return torch.cat([self._climb(part) for part in x.split(rows)])

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n 1 *space"]:
        """Signed distances in voxels, clipped."""
        return self.clip * self.network.decode(z)

    def _climb(self, x: Float[Tensor, "b 1 *space"]) -> Float[Tensor, "b k"]:
        """The best of the encoder's code and the steps from there."""
        net = self.network
        z = net.encode(x)[0]
        best, least = z, self._loss(x, z)
        for _ in range(_STEPS):
            z = z + self._step(x, z)
            loss = self._loss(x, z)
            best = torch.where((loss < least)[:, None], z, best)
            least = torch.minimum(loss, least)
        return best

    def _loss(self, x: Tensor, z: Tensor) -> Float[Tensor, " b"]:
        error = (x - self.network.decode(z)).abs().flatten(1)
        fair = error - _SOFT * torch.log1p(error / _SOFT)
        return fair.sum(1) + 0.5 * KL_WEIGHT * z.square().sum(1)

    def _step(self, x: Float[Tensor, "b 1 *space"], z: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """One Gauss-Newton step; a voxel where D is clipped does not move and has no say."""
        net = self.network
        raw = net.unclipped(z).flatten(1)
        error = x.flatten(1) - raw.clamp(-1, 1)
        weight = (raw.abs() < 1) / (error.abs() + _SOFT)
        inner = net.jacobian(z) * net.scale[:, None]
        jacobian = torch.einsum("mv,bmk->bvk", net.basis.flatten(1), inner)
        weighted = jacobian * weight[..., None]
        hessian = jacobian.mT @ weighted + KL_WEIGHT * torch.eye(net.latent)
        slope = torch.einsum("bvk,bv->bk", weighted, error) - KL_WEIGHT * z
        step: Tensor = torch.linalg.solve(hessian, slope)
        return step


def started(pca: SdfPca, x: Float[Tensor, "n 1 *space"], k: int) -> ShapeNetwork:
    """The network before training.

    Its modes are those of `pca`, its centres the codes of the shapes x in [-1, 1], and its bend the kernel ridge
    regression of the modes above k on the first k, with penalty 1.
    """
    c = (x - pca.mean).flatten(1) @ pca.basis.flatten(1).T / pca.scale
    network = ShapeNetwork(len(pca.space), 1, pca.space, latent=k, modes=len(pca.scale), centres=len(x))
    network.mean, network.basis, network.scale = pca.mean, pca.basis, pca.scale
    network.centres = c[:, :k].contiguous()
    kernel = network.features(network.centres) + torch.eye(len(x))
    with torch.no_grad():
        network.outward.weight[k:] = torch.linalg.solve(kernel, c[:, k:]).T
    return network


def _config(keywords: dict[str, Any], folder: Path, steps: int, seed: int) -> TrainConfig:
    """The run. Few and small steps: the start is close to what these few shapes can teach."""
    own = {k: v for k, v in keywords.items() if k not in ("spatial_dims", "in_channels")}
    return check_config(
        {
            "name": "shape-vae", "out": str(folder), "seed": seed, "init": str(folder / "start"),
            "network": {"name": NAME, **own}, "objective": {"kind": "vae", "kl_weight": KL_WEIGHT},
            "optimizer": {"lr": 3e-4, "warmup": 20}, "batch_size": 16, "steps": steps,
            "ema": 0.99, "validation": 0.0, "save_every": steps, "log_every": 50,
        }
    )  # fmt: skip
