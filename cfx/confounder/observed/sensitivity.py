"""Where a decision is sensitive: gradients averaged over noise and over networks, as maps to cluster.

Reference: Smilkov et al. (2017), "SmoothGrad: removing noise by adding noise".
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.models.classifiers import log_probs


def smooth_gradients(
    classifiers: Sequence[nn.Module],
    x: Float[Tensor, "n c *space"],
    y: Int[Tensor, " n"],
    *,
    copies: int = 4,
    spread: float = 0.1,
    batch_size: int = 64,
    seed: int = 0,
) -> Float[Tensor, "n 1 *space"]:
    """|d log p(y) odds / d x|, averaged over noisy copies and networks, summed over channels.

    Args:
        classifiers: Networks from images to logits.
        x: Images in [-1, 1].
        y: Class whose evidence is looked for, one a row.
        copies: Noisy copies of every image.
        spread: Standard deviation of their noise.
        batch_size: Rows worked on together; the result does not depend on it.
        seed: Seed of the noise.

    Raises:
        InputError: no network.
    """
    if not classifiers:
        raise InputError("classifiers: expected at least one network, got none")
    parts = []
    for rows in torch.arange(len(x)).split(batch_size):
        total = torch.zeros_like(x[rows])
        for j in range(copies):
            noisy = x[rows] + spread * normal(x.shape[1:], seed=seed, row=rows, stream=j)
            for f in classifiers:
                total = total + _gradient(f, noisy, y[rows])
        parts.append((total / (copies * len(classifiers))).abs().sum(1, keepdim=True))
    return torch.cat(parts)


def _gradient(f: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of the log-odds of y."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        own = log_probs(f(x)).gather(1, y[:, None])
        odds = own - torch.log1p(-own.exp().clamp(max=1 - 1e-6))
        return torch.autograd.grad(odds.sum(), x)[0]
