"""Small networks whose maps are known, and images for them."""

import torch
import torch.nn.functional as F
from torch import nn

from cfx.core.random import normal, uniform

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def images(n: int = 2, space: tuple[int, ...] = (8, 8), channels: int = 1, seed: int = 0) -> torch.Tensor:
    return 2 * uniform((channels, *space), seed=seed, row=torch.arange(n), stream=0) - 1


def weighted(module: nn.Module, scale: float = 0.4) -> nn.Module:
    """Counter-based weights everywhere, running statistics too, at rest."""
    for k, v in enumerate([*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]):
        v.data.copy_(scale * normal((v.numel(),), seed=7, row=torch.tensor([k]), stream=1)[0].view_as(v))
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_var.data.abs_().add_(0.5)
    return module.eval()


class Linear(nn.Module):
    """k logits that are linear in the image, with a bias."""

    def __init__(self, space: tuple[int, ...] = (8, 8), k: int = 3) -> None:
        super().__init__()
        self.w = nn.Parameter(normal((k, 1, *space), seed=3, row=torch.tensor([0]), stream=2)[0])
        self.b = nn.Parameter(torch.arange(k).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.flatten(1), self.w.flatten(1), self.b)


class Rectified(nn.Module):
    """Convolutions and rectifiers, whose activation is written in one of several ways."""

    def __init__(self, how: str = "module", dims: int = 2, bias: bool = True, norm: bool = False) -> None:
        super().__init__()
        self.one, self.two = (CONV[dims](a, 4, 3, padding=1, bias=bias) for a in (1, 4))
        self.norm = NORM[dims](4) if norm else nn.Identity()
        self.head = nn.Linear(4, 3, bias=bias)
        self.how, self.acts = how, nn.ModuleList([nn.ReLU(inplace=how == "inplace") for _ in range(2)])

    def act(self, z: torch.Tensor, k: int) -> torch.Tensor:
        if self.how == "functional":
            return F.relu(z)
        if self.how == "method":
            return z.relu()
        if self.how == "clamp":
            return z.clamp(min=0)
        if self.how == "functional-inplace":
            return F.relu_(z) if k else F.relu(z, True)
        return self.acts[0 if self.how == "reused" else k](z)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.act(self.norm(self.one(x)), 0)
        return self.head(self.act(self.two(z) + z, 1).flatten(2).mean(2))


class Squared(torch.autograd.Function):
    """An activation of the user's own that no override sees."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0).square()

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0].clamp(min=0) * g


class Hidden(Rectified):
    """Its activations are an autograd function of its own."""

    def act(self, z: torch.Tensor, k: int) -> torch.Tensor:
        return Squared.apply(z)
