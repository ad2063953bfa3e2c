"""What a set of counterfactuals is worth: every row counted, each figure with its bootstrap interval.

`rows` has one number a row, `evaluate` their means, `references` the two trivial edits that belong in every table.
`realism`, `faithful`, `consistency` and `latent` ask the questions that need more than the result itself;
`cfx.counterfactual.meanings` says what every metric is called and means.
"""

from cfx.counterfactual.metrics.consistency import Nullable, composition, null_drift, reversibility
from cfx.counterfactual.metrics.evaluate import evaluate, means, summarise
from cfx.counterfactual.metrics.faithful import attribute_change, cout, diversity
from cfx.counterfactual.metrics.latent import im1, im2, latent_divergence
from cfx.counterfactual.metrics.realism import FeatureSpace, penultimate
from cfx.counterfactual.metrics.references import identity_edit, random_real
from cfx.counterfactual.metrics.rows import CHANGED, TRUE_EFFECT, Measurements, per_row

__all__ = [
    "CHANGED",
    "TRUE_EFFECT",
    "FeatureSpace",
    "Measurements",
    "Nullable",
    "attribute_change",
    "composition",
    "cout",
    "diversity",
    "evaluate",
    "identity_edit",
    "im1",
    "im2",
    "latent_divergence",
    "means",
    "null_drift",
    "penultimate",
    "per_row",
    "random_real",
    "reversibility",
    "summarise",
]
