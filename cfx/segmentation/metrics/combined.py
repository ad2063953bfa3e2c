"""The combined index of ambiguous segmentation and its three parts, of samples S_1 .. S_N and readers Y_1 .. Y_M.

    S_c    = |U_S and U_Y| / |U_Y|                            sensitivity of the unions U_S of samples, U_Y of readers
    D_max  = mean over readers of max over samples of Dice    is what each reader drew among the samples?
    D_a    = 1 - (|Vmax_S - Vmax_Y| + |Vmin_S - Vmin_Y|) / 2  do samples differ as much as readers do?
    CI     = 3 / (1/S_c + 1/D_max + 1/D_a)                    their harmonic mean

with Vmax and Vmin the largest and the smallest 1 - Dice of two different masks.

The paper prints 3 S_c D_max D_a / (S_c + D_max + D_a), which is no harmonic mean: of three equal parts x it makes x^2.
Its table fits the harmonic mean only, so that is `ci`; the printed form, which others have programmed, is `ci_printed`.
In both cases a part that is 0 makes the index 0.

S_c is 1 where both unions are empty and 0 where the readers' alone is. It only asks whether everything was found: masks
of the whole image score 1, so CI never stands alone.

Reference: Rahman, Valanarasu, Hacihaliloglu, Patel (2023), "Ambiguous medical image segmentation using diffusion
models". D_max rises with N, and takes the maximum over samples: over readers any one good mask would do.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.segmentation.metrics.drawings import Drawings, Layers, Masks, over_classes

Parts = tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]
"""S_c, D_max and D_a."""


def s_c(samples: Masks, readers: Masks, classes: int | None = None) -> Float[Tensor, " n"]:
    """Combined sensitivity S_c.

    Args:
        samples: Samples `(n, s, *space)`.
        readers: Readers' masks `(n, r, *space)`.
        classes: Number of classes, for class numbers.

    Raises:
        InputError: masks that do not fit together.
    """
    drawn = Drawings.of(samples, readers, classes)
    return sensitivity(drawn.samples, drawn.readers)


def d_max(samples: Masks, readers: Masks, classes: int | None = None) -> Float[Tensor, " n"]:
    """Mean over readers of the Dice of the sample that fits best; arguments and errors as in `s_c`."""
    return best_dice(Drawings.of(samples, readers, classes).across.dice)


def d_a(samples: Masks, readers: Masks, classes: int | None = None) -> Float[Tensor, " n"]:
    """Diversity agreement D_a; arguments and errors as in `s_c`, and two samples and two readers are needed."""
    return diversity_agreement(Drawings.of(samples, readers, classes, least=(2, 2)))


def ci(samples: Masks, readers: Masks, classes: int | None = None) -> Float[Tensor, " n"]:
    """Combined index CI, the harmonic mean of S_c, D_max and D_a; arguments and errors as in `d_a`."""
    return harmonic(parts(Drawings.of(samples, readers, classes, least=(2, 2))))


def ci_printed(samples: Masks, readers: Masks, classes: int | None = None) -> Float[Tensor, " n"]:
    """CI as the paper prints it, 3abc / (a + b + c), below the harmonic mean; arguments and errors as in `d_a`."""
    return printed(parts(Drawings.of(samples, readers, classes, least=(2, 2))))


def parts(drawn: Drawings) -> Parts:
    """S_c, D_max and D_a."""
    return sensitivity(drawn.samples, drawn.readers), best_dice(drawn.across.dice), diversity_agreement(drawn)


def sensitivity(samples: Layers, readers: Layers) -> Float[Tensor, " n"]:
    """S_c, the mean over the classes that one of the unions has."""
    found, wanted = samples.any(2).flatten(2), readers.any(2).flatten(2)
    both, size = (found & wanted).sum(2), wanted.sum(2)
    share = torch.where(size == 0, 0.0, both.double() / size)
    return over_classes(share, (found | wanted).any(2))


def best_dice(dice: Float[Tensor, "n s r"]) -> Float[Tensor, " n"]:
    """D_max."""
    return dice.amax(1).mean(1)


def diversity_agreement(drawn: Drawings) -> Float[Tensor, " n"]:
    """D_a; what 1 - Dice differs by, Dice differs by."""
    (least, most), (low, high) = _ends(drawn.among_samples.dice), _ends(drawn.among_readers.dice)
    return 1 - ((least - low).abs() + (most - high).abs()) / 2


def _ends(dice: Float[Tensor, "n s s"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Smallest and largest Dice of different masks."""
    same = torch.eye(dice.shape[-1], dtype=torch.bool, device=dice.device)
    return dice.masked_fill(same, torch.inf).amin((1, 2)), dice.masked_fill(same, -torch.inf).amax((1, 2))


def harmonic(of: Parts) -> Float[Tensor, " n"]:
    """Harmonic mean of three parts, 0 where one is."""
    a, b, c = of
    return torch.where(a * b * c == 0, 0.0, 3 * a * b * c / (a * b + b * c + c * a))


def printed(of: Parts) -> Float[Tensor, " n"]:
    """3abc / (a + b + c), 0 where one part is."""
    a, b, c = of
    return torch.where(a * b * c == 0, 0.0, 3 * a * b * c / (a + b + c))
