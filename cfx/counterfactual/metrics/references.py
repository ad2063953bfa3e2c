"""The two rows that belong beside every method in a table: the edit that does nothing, and another person's image.

Doing nothing has every distance zero, and scores what the field's plain Frechet distance would call perfect. A random
real image of the target class is perfectly valid and perfectly realistic, and says nothing about the image. Between
the two lies what a counterfactual has to show.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.models.judge import Classifier, Judge, margin_of

_CHOICE = 1 << 20  # beyond the streams of the noise levels


def identity_edit(result: Counterfactuals) -> Counterfactuals:
    """The result of leaving every image as it is; nothing has to be computed for it."""
    margin = margin_of(result.probs_before.log(), result.target)
    return _in_place_of(
        "identity edit", result, result.x.clone(), result.probs_before, margin, result.oracle_probs_before
    )


def random_real(
    result: Counterfactuals,
    reference: Cohort,
    classifier: Classifier,
    *,
    oracle: Classifier | None = None,
    seed: int = 0,
) -> Counterfactuals:
    """The result of showing a real image of the target class instead, drawn for every row by its own counter.

    Args:
        result: The run whose inputs and targets are taken over.
        reference: Labelled real images of other subjects.
        classifier: The classifier that is explained.
        oracle: The independent one.
        seed: Seed of the choice.

    Raises:
        InputError: a reference without class labels, without an image of a wanted class, or of another shape.
    """
    if reference.y is None or reference.y.ndim != 1:
        raise InputError("reference: expected a cohort with one class label an image, got none")
    if reference.x.shape[1:] != result.x.shape[1:]:
        found, wanted = tuple(reference.x.shape[1:]), tuple(result.x.shape[1:])
        raise InputError(f"reference: expected images of shape {wanted}, got {found}")
    u = uniform((), seed=seed, row=result.row, stream=_CHOICE).double()
    chosen = torch.zeros_like(result.target)
    for k in result.target.unique().tolist():
        pool, here = (reference.y == k).nonzero().flatten(), result.target == k
        if len(pool) == 0:
            raise InputError(f"reference: expected images of class {k}, got none")
        chosen[here] = pool[(u[here] * len(pool)).long()]
    x = reference.x[chosen]
    logits = Judge(classifier).answers(x)
    judged = None if oracle is None else Judge(oracle, "oracle").probabilities(x)
    return _in_place_of("random real", result, x, logits.softmax(1), margin_of(logits, result.target), judged)


def _in_place_of(
    name: str,
    result: Counterfactuals,
    x_cf: Float[Tensor, "n c *space"],
    probs: Float[Tensor, "n k"],
    margin: Float[Tensor, " n"],
    oracle: Float[Tensor, "n k2"] | None,
) -> Counterfactuals:
    """A result with these images, made at no cost; re-noising is not tried on them."""
    edited = (x_cf != result.x).any(1, keepdim=True)
    zero = torch.zeros_like(result.nfe_unet_forward)
    done = torch.where(edited.flatten(1).any(1), int(Verdict.FLIPPED), int(Verdict.ALREADY))
    made = replace(
        result,
        x_cf=x_cf,
        probs_after=probs,
        edited=edited,
        margin_after=margin,
        strength=torch.zeros_like(result.strength),
        nfe_unet_forward=zero,
        nfe_unet_backward=zero,
        nfe_classifier=zero,
        nfe_classifier_backward=zero,
        seconds=torch.zeros_like(result.seconds),
        oracle_probs_after=oracle,
        smaller=None,
        consent=None,
        read=None,
        read_share=None,
        read_alone=None,
        rest_alone=None,
        read_error=None,
        nfe_to_flip=None,
        method=name,
    )
    return replace(made, verdict=torch.where(made.reached, done, int(Verdict.BUDGET)).to(result.verdict))
