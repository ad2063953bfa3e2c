"""What counts as showing what a classifier reads, and a bench that says so of every case and method."""

import json

import pytest
import torch

from cfx.commands.bench.faithful import Answer, FaithfulBench, figures, measured, projection, run_faithful, share, table
from cfx.commands.bench.stock import Case
from cfx.core.errors import InputError
from cfx.runtime.config import read_as
from tests.counterfactual.toys import Quadratic, class_means, explain_toys
from tests.tiny import SIZE, checkpoints


def a_case(result, disease=None, truth=None, networks=1):
    nowhere = torch.zeros_like(result.edited)
    disease = result.x + 2 * (result.x_cf - result.x) if disease is None else disease
    some, cohort = networks * [Quadratic(class_means((8, 8)))], result.cohort
    return Case("toy", some, cohort, cohort, disease, result.target, nowhere, truth)


def test_projection_and_share_of_known_maps():
    e = torch.tensor([[1.0, 0.0], [3.0, 3.0]])[:, None, None]
    d = torch.tensor([[2.0, 0.0], [1.0, -1.0]])[:, None, None]
    torch.testing.assert_close(projection(e, d), torch.tensor([0.5, 0.0], dtype=torch.float64))
    assert projection(e, 0 * d).isnan().all()
    where = torch.tensor([[True, False], [True, False]])[:, None, None]
    torch.testing.assert_close(share(e, where), torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert share(0 * e, where).isnan().all()


def test_a_row_is_measured_against_the_disease_towards_its_target_and_what_can_be_read():
    result = explain_toys(6)
    moved = result.edited.flatten(1).any(1)
    truth = torch.zeros_like(result.edited)
    truth[..., :4] = True
    case = a_case(result, truth=truth)
    network = case.networks[0]
    found = measured(case, result, network)
    e2 = (result.x_cf - result.x).square()
    torch.testing.assert_close(found["shows_disease"][moved], torch.full((int(moved.sum()),), 0.5, dtype=torch.float64))
    torch.testing.assert_close(
        found["edit_in_truth"][moved], (e2[..., :4].sum((1, 2, 3)) / e2.sum((1, 2, 3))).double()[moved]
    )
    whole = result.replace(read=result.edited)
    again = measured(case, whole, network)
    torch.testing.assert_close(again["read_shows_disease"][moved], found["shows_disease"][moved])
    everywhere = measured(Case(**vars(case) | {"lesion": result.edited}), whole, network)
    assert (everywhere["read_in_lesion"][moved] == 1).all()
    turned = measured(Case(**vars(case) | {"towards": 1 - result.target}), result, network)
    torch.testing.assert_close(turned["shows_disease"], -found["shows_disease"], equal_nan=True)


def test_a_refusal_is_a_row_that_says_why_and_is_not_judged():
    result = explain_toys(6)
    case = a_case(result)
    refused = figures(case, [Answer(None, "the classes are exchanged")])
    assert refused["judged"] == refused["trusted"] == refused["n"] == 0
    assert refused["why"] == "the classes are exchanged"
    done = figures(case, [Answer(result)])
    assert done["judged"] == 1
    assert "why" not in done
    assert done["n"] == 6


def test_most_rows_have_to_flip_for_a_run_to_be_trusted_and_a_family_is_counted_by_network():
    result = explain_toys(6)
    never = result.replace(margin=result.margin + 1e6)
    case = a_case(result, networks=4)
    answers = [Answer(result), Answer(never), Answer(result, "near chance"), Answer(None, "refused")]
    assert [a.trusted for a in answers] == [True, False, False, False]
    found = figures(case, answers)
    assert (found["judged"], found["trusted"], found["n"], found["networks"]) == (0.5, 0.25, 18, 4)
    assert found["validity"] == pytest.approx(2 / 3)


def test_the_table_has_all_of_the_first_method_the_others_beside_it_and_says_why():
    known = {"shows_disease": 0.5, "carried": 1.0}
    text = table([
        {"classifier": "a", "method": "m", "n": 0, "judged": 0.0, "why": "near chance"},
        {"classifier": "b", "method": "m", "n": 4, "judged": 1.0, **known, "stable": 0.25},
        {"classifier": "b", "method": "other", "n": 2, "judged": 1.0, **known},
    ])  # fmt: skip
    assert "| a | 0 | 0.00 |" in text
    assert "| a | - | - |" in text
    assert "| b | 0.50 / 1.00 / 0.25 | 0.50 / 1.00 / - |" in text
    assert "- `a`: near chance" in text


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return checkpoints(tmp_path_factory.mktemp("tiny"))


def config(tiny, folder, **more):
    keys = {
        "name": "toy", "out": str(folder), "size": SIZE, "n": 4, "reference": 16, "places": 1, "untrained": 2, "few": 2,
        "learn": 8, "steps": 1, "generator": tiny["generator"], "classifiers": {"a": tiny["classifier"]},
        "oracle": tiny["oracle"], "methods": [{"method": "gradient-attack"}, {"method": "additive-map", "rows": 2}],
    }  # fmt: skip
    return FaithfulBench.model_validate(keys | more)


def test_the_bench_writes_one_row_a_case_and_method_and_families_by_the_first_alone(tmp_path, tiny):
    rows = run_faithful(config(tiny, tmp_path, cases=("pixel", "untrained", "exchanged")))
    names = [(r["classifier"], r["method"], r["networks"]) for r in rows]
    assert names[:2] == [("pixel-0", "gradient-attack", 1), ("pixel-0", "additive-map", 1)]
    assert [n for n in names if n[0] == "untrained-vit"] == [("untrained-vit", "gradient-attack", 2)]
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    assert rows[0]["read_in_truth"] == 1
    assert rows[1]["n"] == 2
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert "pixel-0" in (tmp_path / "table.md").read_text()


def test_a_case_there_is_none_of_is_refused_with_those_there_are(tmp_path, tiny):
    with pytest.raises(InputError, match=r"pixel.*patch.*nonsense"):
        run_faithful(config(tiny, tmp_path, cases=("nonsense",)))


def test_the_shipped_configuration_is_whole(root):
    found = read_as(FaithfulBench, root / "configs/bench/brain64-faithful.yaml")
    assert found.untrained >= 20
