"""A result with every verdict, made by hand, and its cohort; and one whose parts are known."""

import torch

from cfx.core.cohort import Cohort
from cfx.counterfactual.result import Counterfactuals, Verdict


def make(n: int = 10, space: tuple[int, ...] = (12, 10), channels: int = 1) -> tuple[Counterfactuals, Cohort]:
    """Rows with all five verdicts in turn; row 4 (refused) has NaN probabilities; the oracle doubts row 5."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(n, channels, *space, generator=g) - 0.5
    verdict = torch.arange(n) % 5
    changed = (verdict != Verdict.ALREADY) & (verdict != Verdict.REFUSED)
    mask = (torch.rand(n, 1, *space, generator=g) < 0.2) & changed.view(-1, *[1] * (x.ndim - 1))
    target = torch.arange(n) % 2
    after = torch.where(target[:, None] == torch.arange(2), 0.9, 0.1)
    before = after.flip(1)
    before[verdict == Verdict.REFUSED] = after[verdict == Verdict.REFUSED] = float("nan")
    oracle = after.nan_to_num(0.5)
    oracle[5 % n] = oracle[5 % n].flip(0)
    count = torch.full((n,), 90)
    result = Counterfactuals(
        x=x,
        x_cf=torch.where(mask, x + 0.25, x),
        target=target,
        probs_before=before,
        probs_after=after,
        edited=mask,
        margin=torch.full((n,), 2.0),
        margin_after=torch.where((verdict == Verdict.BUDGET) | (verdict == Verdict.REFUSED), 1.5, 2.5),
        strength=torch.rand(n, generator=g),
        verdict=verdict,
        row=torch.arange(n) + 100,
        nfe_unet_forward=count,
        nfe_unet_backward=count * 0,
        nfe_classifier=count,
        nfe_classifier_backward=count,
        depth="typical",
        seed=3,
        seconds=torch.full((n,), 20.0 / n),
        oracle_probs_before=before.nan_to_num(0.5),
        oracle_probs_after=oracle,
    )
    ids = tuple(f"sub-{i}" for i in range(n))
    cohort = Cohort(x, ids=ids, x_true=(x + 0.1), lesion=~mask, classes=["healthy", "ill"])
    return result, cohort


def divided(n: int = 10, space: tuple[int, ...] = (12, 10), channels: int = 1) -> tuple[Counterfactuals, Cohort]:
    """As `make`, with half of every edit read by the classifier: of the rows with an edit every third is carried,
    redundant and whole, in this order."""
    result, cohort = make(n, space, channels)
    edited = result.edited.flatten(1).any(1)
    way = (edited.cumsum(0) - 1) % 3
    half = torch.zeros_like(result.edited)
    half[:, :, : space[0] // 2] = True

    def figures(*values: float) -> torch.Tensor:
        return torch.tensor(values)[way].where(edited, torch.nan)

    return result.replace(
        read=result.edited & half,
        read_share=figures(0.19, 0.21, 0.92), read_alone=figures(0.93, 0.91, 0.98),
        rest_alone=figures(0.04, 0.63, 0.07), read_error=figures(0.0, 0.07, 0.02),
        consent=figures(0.31, 0.98, 0.71),
    ), cohort  # fmt: skip
