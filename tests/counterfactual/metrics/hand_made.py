"""A result made by hand: two classes, target 1, rows that reach the margin or do not."""

import torch

from cfx.counterfactual.result import Counterfactuals, Verdict


def result_of(x: torch.Tensor, x_cf: torch.Tensor, reached: list[bool] | None = None) -> Counterfactuals:
    n = len(x)
    reached = [True] * n if reached is None else reached
    zero, ones = torch.zeros(n, dtype=torch.long), torch.ones(n)
    probs = torch.tensor([0.2, 0.8]).expand(n, 2)
    return Counterfactuals(
        x=x,
        x_cf=x_cf,
        target=zero + 1,
        probs_before=probs.flip(1),
        probs_after=probs,
        edited=(x != x_cf).any(1, keepdim=True),
        margin=ones,
        margin_after=torch.tensor([1.5 if r else 0.5 for r in reached]),
        strength=ones,
        verdict=torch.tensor([int(Verdict.FLIPPED if r else Verdict.BUDGET) for r in reached]),
        row=torch.arange(n),
        nfe_unet_forward=zero + 10,
        nfe_unet_backward=zero,
        nfe_classifier=zero + 3,
        nfe_classifier_backward=zero + 4,
        depth="typical",
        seed=0,
        seconds=torch.full((len(x),), 2.0 / len(x)),
    )
