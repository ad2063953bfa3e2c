"""How much of an image's features the classifier has no use for, as a logit beside its own (virtual-logit matching).

Let l = W z + b be the logits of features z, o = -W^+ b the point where all are 0, and R the directions of z - o beyond
the D principal ones of the images it is fitted to (uncentred). With

    v(x) = alpha |R' (z - o)|,    alpha = sum_i max_k l_k(x_i) / sum_i |R' (z_i - o)|

the score is v - log sum_k exp l_k. Its sigmoid is the probability, in a softmax over K + 1 classes, of the one whose
logit is v, as published. Of several layers the last is read. Cost: 1 evaluation of the features, from which the logits
follow.

Reference: Wang, Li, Feng, Zhang (2022), arXiv 2203.10807.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.models.features import last_layer
from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.distance.vectors import collected, vectors

_ROUNDING = 0.05  # of the largest logit: half precision may be so far off, features of something else are farther


@dataclass(frozen=True)
class Vim:
    """Settings of the detector.

    Attributes:
        dims: D, the dimension of the principal space; None for the published one: 1000 of 2048 features or more, 512 of
            768 or more, else half of them.
    """

    name: ClassVar[str] = "vim"
    needs: ClassVar[tuple[str, ...]] = ("classifier", "features")
    dims: int | None = None

    def fit(self, learn: Learn) -> "VimScorer":
        """Origin, directions and scale.

        Raises:
            InputError: features that the classifier's last layer does not read, or a principal space that leaves none
                of them over.
        """
        z, head = collected(learn)[-1], linear(learn)
        w, b = head.weight.detach().double().cpu(), torch.zeros(head.out_features).double()
        b = b if head.bias is None else head.bias.detach().double().cpu()
        logits = learn.collect(lambda ask: ask.logits(ask.x)).double()
        w, b = (
            torch.cat([torch.zeros_like(v), v]) if len(v) == 1 else v for v in (w, b)
        )  # a logit l stands for (0, l)
        check_reads(z, w, b, logits)
        dims = self._dims(z.shape[1])
        o = -torch.linalg.pinv(w) @ b
        r = torch.linalg.eigh((z - o).T @ (z - o)).eigenvectors[:, : z.shape[1] - dims]  # smallest first
        residual = ((z - o) @ r).norm(dim=1).mean()
        if not float(residual) > 1e-9 * float((z - o).norm(dim=1).mean()):
            raise InputError(f"dims: expected features with something beyond {dims} principal directions, got nothing")
        return VimScorer(w, b, o, r, float(logits.amax(1).mean() / residual))

    def _dims(self, n: int) -> int:
        """D for so many features."""
        dims = self.dims if self.dims is not None else (1000 if n >= 2048 else 512 if n >= 768 else n // 2)
        if not 0 <= dims < n:
            raise InputError(f"dims: expected 0 .. {n - 1} principal directions of {n} features, got {dims}")
        return dims


def linear(learn: Learn) -> nn.Linear:
    """The last layer of the classifier.

    Raises:
        InputError: it is not linear, or cannot be seen.
    """
    assert learn.tools.classifier is not None
    head = last_layer(learn.tools.classifier.classifier)
    if not isinstance(head, nn.Linear):
        came = "none" if head is None else type(head).__name__
        raise InputError(f"classifier: expected one that ends in a torch.nn.Linear for vim, got {came}")
    return head


def check_reads(
    z: Float[Tensor, "n d"], w: Float[Tensor, "k d2"], b: Float[Tensor, " k"], logits: Float[Tensor, "n k2"]
) -> None:
    """Refuse features of which the logits are not W z + b.

    Raises:
        InputError: that is so.
    """
    if z.shape[1] != w.shape[1] or logits.shape[1] != len(w):
        given = f"{len(w)} x {w.shape[1]} weights, {z.shape[1]} features and {logits.shape[1]} logits"
        raise InputError(f"features: expected the vectors that the classifier's last layer reads, got {given}")
    if float((z @ w.T + b - logits).abs().max()) > _ROUNDING * float(logits.abs().max()):
        raise InputError(
            "features: expected the vectors that the classifier's last layer reads, got others: W z + b is not its "
            "logits; leave features out, and the classifier's own are taken"
        )


@dataclass(frozen=True)
class VimScorer:
    """The detector, fitted.

    Attributes:
        w: Weights of the last layer.
        b: Its bias.
        o: Features at which all logits are 0.
        r: Directions beyond the principal ones.
        alpha: Scale of the virtual logit.
    """

    w: Float[Tensor, "k d"]
    b: Float[Tensor, " k"]
    o: Float[Tensor, " d"]
    r: Float[Tensor, "d rest"]
    alpha: float

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        z = vectors(ask)[-1]
        virtual = self.alpha * ((z - self.o) @ self.r).norm(dim=1)
        return Scored(virtual - (z @ self.w.T + self.b).logsumexp(1))
