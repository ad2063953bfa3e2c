"""The generalised energy distance between samples and readers, squared, and the diversity of either.

With d = 1 - IoU, samples S_1 .. S_N and readers Y_1 .. Y_M,

    GED_N = 2 mean d(S_i, Y_j) - mean d(S_i, S_j) - mean d(Y_i, Y_j),

no root taken. In the V-form, which is what papers print, the last two means are over all ordered pairs, a mask with
itself among them; in the U-form over pairs of different masks. With D = E d(S, S') of independent samples,

    E GED_N = GED_inf + D / N          the V-form in samples is biased by D / N,
    E GED_N' - E GED_N = D (1/N' - 1/N),

and the U-form estimates GED_inf, the distance at N -> infinity, from any N >= 2. So a perfect sampler, which draws one
of the readers' masks at random, has GED_N = D / N in the V-form: no GEDs of different N may be compared. Likewise in
readers: if they are four draws of what all readers would draw, even the true distribution has GED_inf = D_Y / 4, unless
the U-form is taken in readers too. Debiased in both it has mean 0 for the truth, hence is negative about as often as
positive.

References: Szekely and Rizzo (2013), "Energy statistics"; Kohl et al. (2018), "A probabilistic U-Net for segmentation
of ambiguous images", appendix B; Kosub (2019) for d being a metric.
"""

from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.overlap import Form, within
from cfx.segmentation.metrics.drawings import Drawings, Masks, alike, layers

_LEAST = {"v": 1, "u": 2}


def ged(
    samples: Masks, readers: Masks, classes: int | None = None, *, form: Form = "v", reader_form: Form = "v"
) -> Float[Tensor, " n"]:
    """Squared generalised energy distance of every image; lower is better.

    Args:
        samples: Samples `(n, s, *space)`.
        readers: Readers' masks `(n, r, *space)`.
        classes: Number of classes, for class numbers.
        form: `v`, the published GED_N of N = s samples; `u`, free of its bias: an estimate of GED_inf.
        reader_form: `v`: these readers are whom to reproduce; `u`: they are a sample of all readers.

    Raises:
        InputError: masks that do not fit together, or fewer than two where the U-form is asked for.
    """
    drawn = Drawings.of(samples, readers, classes, least=(_LEAST[form], _LEAST[reader_form]))
    return energy(drawn, form, reader_form)


def energy(drawn: Drawings, form: Form, reader_form: Form) -> Float[Tensor, " n"]:
    """`ged` of masks that are checked."""
    own, theirs = within(drawn.among_samples.distance, form), within(drawn.among_readers.distance, reader_form)
    return 2 * drawn.across.distance.mean((1, 2)) - own - theirs


def ged_at(
    ged: Float[Tensor, " n"] | float, diversity: Float[Tensor, " n"] | float, *, n: int | float, to: int | float
) -> Float[Tensor, " n"] | float:
    """What a V-form GED would be on average with another number of samples.

    Args:
        ged: GED with `n` samples.
        diversity: Mean distance D of different samples (the U-form, as `diversity` returns it; of a printed V-form
            figure of n samples n / (n - 1) times it).
        n: Number of samples it was computed with; `math.inf` for the U-form.
        to: Number of samples wanted; `math.inf` for the limit.

    Raises:
        InputError: fewer than one sample.
    """
    if min(n, to) < 1:
        raise InputError(f"n, to: expected at least one sample, got {n} and {to}")
    return ged + diversity * (1 / to - 1 / n)


def diversity(masks: Masks, classes: int | None = None, *, form: Form = "u") -> Float[Tensor, " n"]:
    """Mean distance 1 - IoU between the masks of an image: of samples, or of readers.

    Args:
        masks: Masks `(n, s, *space)`.
        classes: Number of classes, for class numbers.
        form: `u`, of pairs of different masks; `v`, a mask with itself counted too: (1 - 1/s) times that.

    Raises:
        InputError: no masks, class numbers out of range, or fewer than two masks for the U-form.
    """
    own = layers(masks, "masks", classes, least=_LEAST[form])
    return within(alike(own, own).distance, form)
