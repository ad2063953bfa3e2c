"""What a label of the simulation can be, and the exact probability of it given the subject.

With class y in {0, 1}, each as likely, the severity s of a subject is drawn with overlap o from

    p(s | y) = (1 - o) U_y(s) + o T_y(s),     U_0 uniform on [0, 0.15], U_1 on [0.7, 1.2],
                                              T_1(s) = 2 s / S^2,  T_0(s) = 2 (S - s) / S^2  on [0, S],  S = 1.2.

Without overlap severity tells the class. With o = 1, P(y = 1 | s) = s / S. The best classifier errs in o / 4 of the
subjects, half of o (int_0^{S/2} T_1 + int_{S/2}^S T_0), since p(s | 0) > p(s | 1) below S / 2 and less above.

Planted factors a_c, each present with P(c = y) = q in the share of subjects that can have it, tell the class as well;
given y they are independent of severity and of each other. So the exact posterior given the subject's factors is

    p = P(y = 1 | s, a) = w_1 / (w_0 + w_1),     w_k = p(s | k) prod_c p(a_c | k).

Everything else of a subject (anatomy, level, scanner) is independent of y. A label that is flipped with probability e
is 1 with probability e + (1 - 2 e) p; two readers who err independently with probability e agree with 1 - 2 e (1 - e).
A reader who draws the edge of a lesion b ~ N(0, spread^2) mm further out marks a voxel of soft lesion value m if
m > sigmoid(-b / 0.9 mm), so with probability Phi(0.9 mm logit(m) / spread).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

HEALTHY_SEVERITY = (0.0, 0.15)
DISEASED_SEVERITY = (0.7, 1.2)
MOST = DISEASED_SEVERITY[1]
"""S, the largest severity."""

_ROUNDING = 1e-6  # a severity at the end of its range may be rounded beyond it


def draw_severity(
    u: Float[Tensor, "n 2"], mix: Float[Tensor, " n"], y: Int[Tensor, " n"], overlap: float
) -> Float[Tensor, " n"]:
    """Severity in class y of subjects whose uniforms are `u` (one a class) and `mix` (which part of the mixture)."""
    own = [low + (high - low) * u[:, k] for k, (low, high) in enumerate((HEALTHY_SEVERITY, DISEASED_SEVERITY))]
    wide = [MOST * (1 - (1 - u[:, 0]).sqrt()), MOST * u[:, 1].sqrt()]
    healthy, diseased = (torch.where(mix < overlap, w, o) for w, o in zip(wide, own, strict=True))
    return torch.where(y == 1, diseased, healthy)


def severity_density(severity: Float[Tensor, " n"], k: int, overlap: float) -> Float[Tensor, " n"]:
    """p(s | y = k)."""
    low, high = (HEALTHY_SEVERITY, DISEASED_SEVERITY)[k]
    inside = (severity >= low - _ROUNDING) & (severity <= high + _ROUNDING)
    wide = 2 * (severity if k else MOST - severity) / MOST**2
    return (1 - overlap) * inside / (high - low) + overlap * wide


def planted_probability(
    amplitude: Float[Tensor, " n"], k: int, *, q: float, share: float, signed: bool
) -> Float[Tensor, " n"]:
    """p(a_c | y = k) of a planted factor of positive strength.

    Args:
        amplitude: The amplitude; 0 for subjects that cannot have it and, unless `signed`, for those in which it is
            absent.
        k: The class.
        q: Probability that the factor equals the class, among those that can have it.
        share: Share of the subjects that can have it.
        signed: Whether an absent factor has a negative amplitude instead of none.
    """
    present, absent = share * (q if k else 1 - q), share * (1 - q if k else q)
    without = torch.where(amplitude < 0, absent, 1 - share) if signed else torch.tensor(absent + 1 - share)
    return torch.where(amplitude > 0, present, without)


def posterior(w0: Float[Tensor, " n"], w1: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """w_1 / (w_0 + w_1)."""
    return w1 / (w0 + w1)


def flipped(y: Int[Tensor, "*#n"], u: Float[Tensor, "*#n"], error: float) -> Int[Tensor, "*#n"]:
    """Labels of which those with u < error are the other class."""
    return torch.where(u < error, 1 - y, y)


def of_flipped(p: Float[Tensor, " n"], error: float) -> Float[Tensor, " n"]:
    """P(label = 1) where p = P(y = 1) and labels are flipped with probability `error`."""
    return error + (1 - 2 * error) * p
