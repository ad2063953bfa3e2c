"""Several counterfactuals of each image that differ: what else could have changed the classifier's mind?

Other seeds alone give near copies (on brains, edits with a cosine of 0.97 at depth `typical`). So every run after the
first must leave alone what the earlier ones used: the fewest voxels that hold a quarter of the energy (the sum of
squares) of each earlier edit that counts. The engine keeps them bit for bit, as any voxel the user forbids; nothing
else is asked of a method, and every run is verified by itself.

Reference: Mothilal, Sharma, Tan (2020), "Explaining machine learning classifiers through diverse counterfactual
explanations", for the aim; to exclude instead of to weigh a penalty is ours.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.denoiser import Generative
from cfx.core.errors import InputError
from cfx.counterfactual.explain import explain
from cfx.counterfactual.result import Counterfactuals
from cfx.models.autoencoder import Vae
from cfx.models.judge import Classifier

_MOST = 1000  # explanations of an image; each is a whole run
_SHARE = 0.25  # of an edit's energy that later runs leave alone; with a half, the fourth of four runs fails too often


def diverse(
    x: Float[Tensor, "n c *space"] | Cohort,
    classifier: Classifier,
    generator: Generative | Vae | None,
    k: int,
    target: int | Int[Tensor, " n"] | None = None,
    *,
    keep: Bool[Tensor, "n 1 *space"] | None = None,
    seed: int = 0,
    **settings: Any,  # noqa: ANN401
) -> tuple[Counterfactuals, ...]:
    """`k` explanations of every image towards the same class, each by other means than those before it.

    Args:
        x: Images `(n, c, *space)` in [-1, 1], or a cohort of them.
        classifier: As in `explain`.
        generator: As in `explain`.
        k: How many; the first is what `explain` gives.
        target: Class to reach, as in `explain`; the same in all runs.
        keep: Where no run may change the image.
        seed: Seed of the first run; each run takes the next.
        settings: All other settings of `explain`, for every run.

    Returns:
        `k` results, all rows in each. A row that has no further way is a row with its verdict; what a failed run tried
        is not forbidden to the next. `metrics.diversity` says how far apart they are.

    Raises:
        InputError: no run asked for; and whatever `explain` refuses.
    """
    if not isinstance(k, int) or k < 1:
        raise InputError(f"k: expected at least one explanation, got {k!r}")
    if k > _MOST:
        raise InputError(f"k: expected at most {_MOST} explanations, got {k}")
    runs = [explain(x, classifier, generator, target, keep=keep, seed=seed, **settings)]
    for j in range(1, k):
        used = strongest(runs[-1])
        keep = used if keep is None else keep.cpu() | used
        runs.append(explain(x, classifier, generator, runs[0].target, keep=keep, seed=seed + j, **settings))
    return tuple(runs)


def strongest(result: Counterfactuals) -> Bool[Tensor, "n 1 *space"]:
    """The fewest voxels of every row that hold a quarter of its edit's energy; none where the row failed or stayed."""
    energy = (result.x_cf - result.x).double().square().sum(1).flatten(1)
    sizes, order = energy.sort(dim=1, descending=True, stable=True)
    before = sizes.cumsum(1) - sizes  # held by stronger voxels already
    held = (before < _SHARE * energy.sum(1, keepdim=True)) & (sizes > 0) & result.reached[:, None]
    return torch.zeros_like(held).scatter(1, order, held).view_as(result.edited)
