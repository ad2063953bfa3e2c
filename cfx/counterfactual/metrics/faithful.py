"""Does the edit change what the classifier looks at, only that, and in more than one way?

COUT, in [-1, 1]. x_t is x with the t/T most changed pixels (ranked by sum_c |x_cf - x|) taken from x_cf, y the source
class and y' the target; trapezoids over T steps:

    COUT = AUC_t p(y' | x_t) - AUC_t p(y | x_t)

The order of the pixels is all that matters, so the map is never divided by its maximum and a zero edit simply keeps
p(y' | x) - p(y | x). Reference: Khorram, Fuxin (2022), "Cycle-consistent counterfactuals by latent transformations".

Attribute amplification: how far attributes that nobody asked to change are moved all the same. Reference: Xia,
Roschewitz, De Sousa Ribeiro, Jones, Glocker (2024), "Mitigating attribute amplification in counterfactual image
generation".

Diversity: mean distance of the k (k - 1) / 2 pairs of k counterfactuals of one image. Reference: Jeanneret, Simon,
Jurie (2022), "Diffusion models for counterfactual explanations" (sigma_L, where the distance is LPIPS).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.counterfactual.metrics.measure import Distance, apart, probability, source_class
from cfx.counterfactual.result import Counterfactuals
from cfx.models.judge import Classifier, Judge


def cout(result: Counterfactuals, classifier: Classifier, *, steps: int = 50) -> Float[Tensor, " n"]:
    """COUT of every row; the source class is the most probable one besides the target, with any number of classes.

    Args:
        result: All rows of a run.
        classifier: The classifier that was explained.
        steps: T, the classifier is asked T + 1 times a row.

    Raises:
        InputError: fewer than one step.
    """
    if steps < 1:
        raise InputError(f"steps: expected at least 1, got {steps}")
    change = (result.x_cf - result.x).abs().sum(1).flatten(1)
    # rank of each pixel, 0 for the most changed
    rank = change.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    rank = rank.view(len(result), 1, *result.x.shape[2:])
    judge, source, curve = Judge(classifier), source_class(result), []
    for t in range(steps + 1):
        pasted = torch.where(rank * steps < t * change.shape[1], result.x_cf, result.x)
        p = judge.probabilities(pasted)
        curve.append(probability(p, result.target) - probability(p, source))
    return torch.trapezoid(torch.stack(curve, 1).double(), dx=1 / steps, dim=1)


def attribute_change(result: Counterfactuals, attributes: Mapping[str, Classifier]) -> dict[str, Float[Tensor, " n"]]:
    """How far every row moves in attributes that should stay, each judged by its own classifier.

    Args:
        result: All rows of a run.
        attributes: A classifier (images to logits) for each attribute that is not the target.

    Returns:
        For each attribute `<name>_probability`, the total variation between its class probabilities before and after
        (for two classes the absolute change of the probability), and `<name>_log_odds`, the absolute change of
        log p_c / (1 - p_c), mean over the classes c, which still tells when probabilities are saturated.
    """
    out: dict[str, Tensor] = {}
    for name, classifier in attributes.items():
        before, after = (Judge(classifier, name).answers(x).double() for x in (result.x, result.x_cf))
        out[f"{name}_probability"] = (after.softmax(1) - before.softmax(1)).abs().sum(1) / 2
        out[f"{name}_log_odds"] = (_log_odds(after) - _log_odds(before)).abs().mean(1)
    return out


def _log_odds(logits: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Each logit minus the log-sum-exp of the others."""
    others = (
        logits[:, None]
        .expand(-1, logits.shape[1], -1)
        .masked_fill(torch.eye(logits.shape[1], dtype=torch.bool), -torch.inf)
    )
    return logits - others.logsumexp(2)


def diversity(results: Sequence[Counterfactuals], distance: Distance | None = None) -> Float[Tensor, " n"]:
    """Mean pairwise distance of several counterfactuals of the same images, row by row.

    Args:
        results: Two or more runs on the same images (other seeds, or other methods).
        distance: Distance of two batches of images; root mean square by default.

    Raises:
        InputError: fewer than two results, or other images.
    """
    if len(results) < 2:
        raise InputError(f"results: expected at least two runs, got {len(results)}")
    if not all(torch.equal(r.x, results[0].x) for r in results):
        raise InputError("results: expected runs on the same images, got different ones")
    return torch.stack([apart(a.x_cf, b.x_cf, distance) for a, b in combinations(results, 2)]).mean(0)
