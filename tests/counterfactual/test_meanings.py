"""Whatever is measured of a row has a name, a heading and a meaning in the catalogue."""

import torch

import cfx.counterfactual.meanings  # noqa: F401  (registers)
from cfx.core.cohort import Cohort
from cfx.counterfactual.metrics import evaluate, per_row
from cfx.display.catalogue import known
from tests.counterfactual.metrics.hand_made import result_of


def test_every_metric_of_a_result_is_known():
    x = torch.zeros(3, 1, 6, 6)
    x_true = x.clone()
    x_true[..., 2:4, 2:4] = 0.5
    result, cohort = result_of(x, x_true), Cohort(x, x_true=x_true, lesion=x_true > 0)
    names = set(per_row(result, cohort)) | {
        name.removesuffix("_low").removesuffix("_high") for name in evaluate(result, cohort)
    }
    assert {"validity", "error_to_truth_ratio", "lesion_dice", "nfe_classifier"} <= names
    assert {name for name in names if known(name) is None} == set()
    assert all(known(name).heading and known(name).meaning.endswith(".") for name in names)
