"""Scores are rows: of networks at rest, checked when built, kept in an atlas; images go where the networks are."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cfx.atlas import read_atlas, write_atlas
from cfx.confounder.intervention import NEEDED, Scores, measure
from cfx.core.errors import InputError
from tests.confounder.linear import Linear, N, dropping, networks, toggle


@pytest.fixture(scope="module")
def scores() -> Scores:
    return measure(networks(1.0, k=3), toggle(), batch_size=7)


def test_the_score_is_the_margin_towards_the_other_class(scores: Scores) -> None:
    change, asked = toggle(), networks(1.0, k=3)
    shown = change.show(torch.arange(N)).arms
    sign = 1 - 2 * change.y.float()
    for name in (*NEEDED, "dose_0.5"):
        logit = torch.stack([f(shown[name])[:, 1] for f in asked])
        torch.testing.assert_close(scores.arm(name), sign * logit)
        assert torch.equal(scores.arm(name).T, scores.score[name])
    assert scores.networks == 3
    assert torch.equal(scores.row, torch.arange(N))


def test_a_network_left_in_training_mode_is_judged_at_rest_and_left_as_it_was(scores: Scores) -> None:
    asked = [dropping(f) for f in networks(1.0, k=3)]
    asked[1][0].eval()  # modes are restored part by part
    found = measure(asked, toggle(), batch_size=7)
    assert all(torch.equal(part, found.parts()[name]) for name, part in scores.parts().items())
    assert [(f.training, f[0].training) for f in asked] == [(True, True), (True, False), (True, True)]


def test_a_function_is_a_network_and_what_one_does_to_its_images_the_others_do_not_see(scores: Scores) -> None:
    first, *others = networks(1.0, k=3)

    def spoiling(x: torch.Tensor) -> torch.Tensor:
        logits = first(x)
        x.zero_()
        return logits

    found = measure([spoiling, *others], toggle(), batch_size=7)
    assert all(torch.equal(part, found.parts()[name]) for name, part in scores.parts().items())


def test_modes_are_restored_after_an_error() -> None:
    asked = [dropping(Linear(1.0, 0.0)), dropping(Linear(float("nan"), 0.0))]
    with pytest.raises(InputError, match=r"classifiers\[1\]: expected finite logits"):
        measure(asked, toggle())
    assert all(f.training and f[0].training for f in asked)


def test_scores_come_back_from_an_atlas_bit_for_bit(scores: Scores, tmp_path: Path) -> None:
    write_atlas(tmp_path / "atlas.zarr", scores)
    found = read_atlas(tmp_path / "atlas.zarr")
    assert isinstance(found, Scores)
    assert found.parts().keys() == scores.parts().keys()
    assert all(torch.equal(part, found.parts()[name]) for name, part in scores.parts().items())
    assert found.start == "same"


def test_scores_are_selected_and_joined_like_any_rows(scores: Scores) -> None:
    joined = Scores.cat([scores[:5], scores[torch.arange(5, N)]])
    assert all(torch.equal(part, joined.parts()[name]) for name, part in scores.parts().items())


def test_an_arm_of_other_networks_is_refused(scores: Scores) -> None:
    with pytest.raises(InputError, match=r"Scores\.score\.same: expected Float .* with .*network = 3, got"):
        scores.replace(score=dict(scores.score) | {"same": scores.score["same"][:, :2]})


@pytest.mark.gpu
def test_images_are_changed_and_scored_where_the_networks_are() -> None:
    asked = [nn.Sequential(nn.Flatten(), nn.Linear(16, 2)) for _ in range(2)]
    here = measure(asked, toggle())
    there = measure([f.cuda() for f in asked], toggle())
    for name, score in here.score.items():
        torch.testing.assert_close(there.score[name], score, atol=1e-4, rtol=1e-4)
    rows = torch.arange(3, device="cuda")
    assert all(x.device == rows.device for x in toggle().show(rows).arms.values())
