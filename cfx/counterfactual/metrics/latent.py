"""Minimality and plausibility as autoencoders see them.

Counterfactual latent divergence (CLD), smaller is better, in [0, 1]. With div = d(x, x_cf), y the class of x, y' the
target, and x_i real images of the reference:

    S_x  = {d(x, x_i) : y_i = y},   S_x' = {d(x, x_i) : y_i = y'}
    CLD  = log( 0.8 exp P(S_x' <= div) + 0.2 exp P(S_x >= div) )

The counterfactual should be nearer to x than real images of the target class are, yet not nearer than the spread within
the class of x; d(a, b) = KL(q(z | a) || q(z | b)) of a variational autoencoder. Doing nothing scores
log(0.8 + 0.2 e) = 0.295: only a method below that says anything.
Reference: Sanchez, Tsaftaris (2022), "Diffusion causal models for counterfactual estimation".

Interpretability scores, smaller is better, with autoencoders of all images (AE) and of one class each (AE_k):

    IM1 = ||x' - AE_y'(x')||^2 / (||x' - AE_y(x')||^2 + eps)
    IM2 = ||AE_y'(x') - AE(x')||^2 / (||x'||_1 + eps)          eps = 1e-8

IM2 depends on where the intensities have their zero; here images are in [-1, 1], so it compares methods on the same
images, not with figures published on [0, 1].
Reference: Van Looveren, Klaise (2021), "Interpretable counterfactual explanations guided by prototypes".
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual.metrics.measure import source_class
from cfx.counterfactual.result import Counterfactuals
from cfx.models.autoencoder import Vae
from cfx.models.running import in_batches

Autoencoder = Callable[[Tensor], Tensor]
"""Images to their reconstructions."""

_EPS = 1e-8


def latent_divergence(result: Counterfactuals, vae: Vae, reference: Cohort) -> Float[Tensor, " n"]:
    """CLD of every row.

    Args:
        result: All rows of a run; the class of x is the most probable one besides the target.
        vae: Autoencoder whose latent posteriors are compared.
        reference: Labelled real images, not those that were explained.

    Raises:
        InputError: a reference without class labels, or without images of a class that occurs.
    """
    if reference.y is None or reference.y.ndim != 1:
        raise InputError("reference: expected a cohort with one class label an image, got none")
    source, target = source_class(result), result.target
    missing = sorted({*source.tolist(), *target.tolist()} - {*reference.y.tolist()})
    if missing:
        raise InputError(f"reference: expected images of every class that occurs, got none of {missing}")
    (m, s), (m_cf, s_cf), (m_ref, s_ref) = (_encoded(vae, x) for x in (result.x, result.x_cf, reference.x))
    div = (s_cf.log() - s.log() + (s.square() + (m - m_cf).square()) / (2 * s_cf.square()) - 0.5).sum(1)
    apart = _divergences(m, s, m_ref, s_ref)
    near = _share(apart <= div[:, None], reference.y == target[:, None])
    far = _share(apart >= div[:, None], reference.y == source[:, None])
    return (0.8 * near.exp() + 0.2 * far.exp()).log()


def _encoded(vae: Vae, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every latent, flat, in float64."""
    both = in_batches(_Encoder(vae), x).double()
    return both[:, 0], both[:, 1].clamp_min(1e-10)


class _Encoder(nn.Module):
    """An autoencoder as a function from images to latent means and standard deviations `(b, 2, z)`."""

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([v.flatten(1) for v in self.vae.encode(x)], 1)


def _divergences(
    m: Float[Tensor, "n z"], s: Float[Tensor, "n z"], m2: Float[Tensor, "k z"], s2: Float[Tensor, "k z"]
) -> Float[Tensor, "n k"]:
    """KL(N(m_i, s_i^2) || N(m2_j, s2_j^2)) of all pairs, expanded so that no (n, k, z) array is made."""
    precision = s2.square().reciprocal()
    square = (s.square() + m.square()) @ precision.T - 2 * m @ (m2 * precision).T + (m2.square() * precision).sum(1)
    return s2.log().sum(1) - s.log().sum(1, keepdim=True) + (square - m.shape[1]) / 2


def _share(event: Tensor, among: Tensor) -> Float[Tensor, " n"]:
    return (event & among).double().sum(1) / among.double().sum(1)


def im1(result: Counterfactuals, by_class: Sequence[Autoencoder]) -> Float[Tensor, " n"]:
    """IM1 of every row; `by_class[k]` is the autoencoder of class k.

    Raises:
        InputError: a class without an autoencoder.
    """
    x = result.x_cf.double()
    own, other = (_reconstructed(result.x_cf, by_class, k) for k in (result.target, source_class(result)))
    return _square(x - own) / (_square(x - other) + _EPS)


def im2(result: Counterfactuals, by_class: Sequence[Autoencoder], everything: Autoencoder) -> Float[Tensor, " n"]:
    """IM2 of every row; `by_class[k]` is the autoencoder of class k and `everything` that of all images.

    Raises:
        InputError: a class without an autoencoder.
    """
    gap = _reconstructed(result.x_cf, by_class, result.target) - in_batches(everything, result.x_cf).double()
    return _square(gap) / (result.x_cf.double().flatten(1).abs().sum(1) + _EPS)


def _reconstructed(x: Tensor, by_class: Sequence[Autoencoder], label: Int[Tensor, " n"]) -> Tensor:
    """Every image through the autoencoder of its label, in float64."""
    if int(label.max()) >= len(by_class):
        raise InputError(f"by_class: expected an autoencoder of class {int(label.max())}, got {len(by_class)} in all")
    out = torch.zeros_like(x, dtype=torch.float64)
    for k in label.unique().tolist():
        out[label == k] = in_batches(by_class[k], x[label == k]).double()
    return out


def _square(v: Tensor) -> Float[Tensor, " n"]:
    return v.flatten(1).square().sum(1)
