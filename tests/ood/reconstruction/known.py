"""Networks whose reconstructions are known, for the tests of this room."""

import torch
from torch import Tensor, nn

from cfx.core.schedule import Schedule
from cfx.ood.detector import Ask, Learn, Tools
from tests.ood.detectors import GaussianGenerator, cohort

LONG = Schedule.from_diffusers({"beta_schedule": "squaredcos_cap_v2"})


class LinearVae(nn.Module):
    """Codes are means of blocks of two voxels an axis, scaled to keep norms: an orthonormal map and its transpose."""

    def __init__(self, std: float = 0.5) -> None:
        super().__init__()
        self.std = std

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        d = x.ndim - 2
        pool = nn.functional.avg_pool2d if d == 2 else nn.functional.avg_pool3d
        mean = pool(x, 2) * 2 ** (d / 2)
        return mean, torch.full_like(mean, self.std)

    def decode(self, z: Tensor) -> Tensor:
        d = z.ndim - 2
        return nn.functional.interpolate(z, scale_factor=2, mode="nearest") / 2 ** (d / 2)


class CodeGenerator(GaussianGenerator):
    """A generator of the codes of `LinearVae`."""

    def encode(self, x: Tensor) -> Tensor:
        return LinearVae().encode(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        return LinearVae().decode(z)


class LongGenerator(GaussianGenerator):
    """On a schedule of a thousand times."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = LONG


def maps(x: Tensor) -> list[Tensor]:
    """Two feature maps, differently coarse."""
    both = torch.cat([x, x.square()], 1)
    pool = nn.functional.avg_pool2d if x.ndim == 4 else nn.functional.avg_pool3d
    return [both, pool(both, 2)]


def tools(**given: object) -> Tools:
    """A generator of normal pixels, the linear autoencoder and features, but for what is given."""
    return Tools(**{"generator": GaussianGenerator(), "autoencoder": LinearVae(), "features": maps} | given)


def ask(x: Tensor, **given: object) -> Ask:
    """A batch with these networks."""
    return Ask(x, tools(**given))


def learn(n: int = 24, space: tuple[int, ...] = (8, 8), **given: object) -> Learn:
    """Images of independent normal pixels to fit to."""
    return Learn(cohort(n, space=space), tools(**given), seed=3, batch_size=10)
