"""Networks whose answers are known in closed form, and images that show them one confounder."""

import torch
from torch import Tensor, nn

from cfx.confounder.planted import Toggle

N = 40


class Linear(nn.Module):
    """Logits of two classes: `signal` times the first pixel plus `cheat` times the last one."""

    def __init__(self, signal: float, cheat: float, bias: float = 0.0) -> None:
        super().__init__()
        self.signal, self.cheat, self.bias = signal, cheat, bias

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        logit = self.signal * flat[:, 0] + self.cheat * flat[:, -1] + self.bias
        return torch.stack([torch.zeros_like(logit), logit], 1)


def toggle(back: float = 0.0) -> Toggle:
    """Images whose first pixel is the class, and whose last pixel is the confounder."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(N) % 2
    x = 0.1 * torch.randn(N, 1, 4, 4, generator=g)
    x[:, 0, 0, 0] = (y - 0.5) + 0.2 * torch.randn(N, generator=g)
    absent, present, changed = x.clone(), x.clone(), x.clone()
    absent[:, 0, -1, -1], present[:, 0, -1, -1] = -0.25, 0.25
    half = x.clone()
    half[:, 0, -1, -1] = 0.0
    changed[:, 0, -1, -1] = x[:, 0, -1, -1] + back * (0.5 - y)
    return Toggle(y, x.clamp(-1, 1), absent.clamp(-1, 1), present.clamp(-1, 1), changed.clamp(-1, 1), {0.5: half})


def networks(cheat: float, spread: float = 0.1, k: int = 8) -> list[nn.Module]:
    """Networks that follow the confounder, each a little differently."""
    g = torch.Generator().manual_seed(1)
    return [Linear(4.0, cheat + spread * float(torch.randn(1, generator=g))) for _ in range(k)]


def dropping(network: nn.Module) -> nn.Module:
    """A network in training mode that drops half of its pixels there."""
    return nn.Sequential(nn.Dropout(0.5), network).train()
