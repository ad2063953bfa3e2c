"""An audit, whole: everything that is asked of classifiers about one suspected confounder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from cfx.confounder.observed.balance import Balance
from cfx.confounder.observed.clusters import Association, Clusters
from cfx.confounder.observed.independence import Independence
from cfx.confounder.probes.probe import Ladder
from cfx.confounder.reliance import Reliance


@dataclass(frozen=True)
class Audit:
    """All findings of one audit.

    Attributes:
        plan_sha256: Digest of the configuration as it was written before the first network ran.
        reliance: The intervention on the images.
        exact: The same with the exact intervention of a simulated cohort, where the estimated one is a shape transfer.
        ladder: How well the class can be told from the mask alone; None without masks.
        partial: Observational: do the predictions depend on the confounder beyond the class?
        full: Observational: does the class tell anything of the predictions beyond the confounder?
        balance: Do the classes match?
        clusters: Groups of sensitivity maps.
        associations: What goes with these groups.
        adjusted: Holm-adjusted p of every test of this confounder.
        examples: Some rows of every arm.
        names: Their names.
    """

    plan_sha256: str
    reliance: Reliance
    exact: Reliance | None
    ladder: Ladder | None
    partial: Independence | None
    full: Independence | None
    balance: Balance
    clusters: Clusters
    associations: Sequence[Association]
    adjusted: Mapping[str, float]
    examples: Mapping[str, Float[Tensor, "b c *space"]]
    names: Sequence[str]
