"""A finding in words and flat figures says what was found, and what was not asked."""

import pytest

from cfx.core.statistics import Estimate
from cfx.ood.shifted import Kind, Shifted, Treated

P = {"score": 0.001, "label": 0.002, "concept": 0.003}


def found(*kinds, **more):
    shares = (Estimate(0.1, 0.05, 0.2), Estimate(0.9, 0.8, 0.95))
    values = {
        "p_values": P, "adjusted": {k: 3 * p for k, p in P.items()}, "level": 0.05, "auc": 0.97, "n": 40,
        "reference_n": 80, "priors": {"em": shares}, "reference_priors": (0.5, 0.5), "classes": ("healthy", "ill"),
        "treated": {"intensity": Treated(0.9, 0.2), "batch_norm": Treated(0.53, 0.001)}, "accuracy": 0.5,
        "reference_accuracy": 0.95, "ece": 0.4, "reference_ece": 0.02,
    }  # fmt: skip
    return Shifted(kinds=kinds, **values | more)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ((), ["No shift is shown (score p = 0.001, label p = 0.002, concept p = 0.003)."]),
        (
            (Kind.COVARIATE,),
            ["Covariate shift: ", "AUC 0.97", "adapting batch normalisation takes that away (AUC 0.53"],
        ),
        ((Kind.SEMANTIC,), ["Semantic shift: ", "after matching intensities AUC 0.90", "no matter of intensities"]),
        ((Kind.LABEL,), ["Label shift: ", "healthy 0.50 to 0.10 [0.05, 0.20], ill 0.50 to 0.90 [0.80, 0.95]"]),
        ((Kind.CONCEPT,), ["Concept shift: ", "50.0% of the batch and 95.0% of the reference", "0.4 and 0.02"]),
        ((Kind.COVARIATE, Kind.LABEL), ["Covariate shift: ", "Label shift: "]),
    ],
)
def test_every_kind_has_words(kinds, said):
    it = found(*kinds, unasked=("Nobody asked for it.",))
    assert it.kind == (kinds[0] if kinds else Kind.NONE)
    assert it.sentence.endswith("Nobody asked for it.")
    for text in said:
        assert text in it.sentence


def test_figures_are_flat():
    summary = found(Kind.LABEL).summary()
    assert summary["kind"] == summary["kinds"] == "label"
    assert (summary["p_label"], summary["p_label_adjusted"]) == (0.002, 0.006)
    assert (summary["prior_em_ill"], summary["prior_em_ill_low"]) == (0.9, 0.8)
    assert (summary["auc_intensity"], summary["p_batch_norm"]) == (0.9, 0.001)
    assert all(isinstance(v, str | float | int) for v in summary.values())
    assert "accuracy" not in found(accuracy=None, reference_accuracy=None, ece=None, reference_ece=None).summary()
