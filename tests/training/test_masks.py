"""Networks that draw masks learn from all readers or from their majority, and say when their draws hardly differ."""

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.errors import CfxWarning, InputError
from cfx.models import load, read_manifest
from cfx.segmentation.metrics import diversity, ged
from cfx.training import train
from cfx.training.config import make_objective
from cfx.training.masks import majority
from cfx.training.objectives import whole_batches
from tests.training.toys import balls, toy_config


def drawn_by_two(n, space=(8, 8)):
    """Half of the readers draw a small ball, half a large one; the image shows where."""
    small, large = (balls(torch.full((n,), r), space) for r in (1.0, 3.0))
    readings = torch.cat([small, large, small, large], 1)
    noise = 0.2 * torch.rand((n, 1, *space), generator=torch.Generator().manual_seed(0))
    return Cohort(x=noise - 0.5 + 0.6 * large, readings=readings)


@pytest.mark.parametrize("space", [(8, 8), (4, 8, 4)])
def test_it_trains_in_two_and_three_dimensions_and_comes_back(tmp_path, space):
    cohort = drawn_by_two(24, space)
    settings = {"kind": "masks", "flip": True, "shift": 1}
    result = train(toy_config(tmp_path, "masks", objective=settings, steps=4), cohort)
    sampler = load(result.checkpoint)
    assert read_manifest(result.checkpoint).classes == ("background", "region")
    assert set(result.figures) == {"loss", "ged_debiased", "diversity", "reader_diversity", "diversity_ratio"}
    with torch.no_grad():
        drawn = sampler.draw(sampler.encode(cohort.x), seed=0, row=torch.arange(24))
    assert drawn.shape == (24, *space)


def test_its_figures_are_those_of_the_room(tmp_path):
    cohort = drawn_by_two(6)
    objective = make_objective(toy_config(tmp_path, "masks", objective={"kind": "masks"}), cohort)
    network = objective.players()["main"]
    figures = objective.evaluate(network, cohort, 3)
    code = tuple(v.repeat_interleave(4, 0) for v in network.encode(cohort.x))
    drawn = network.draw(code, seed=3, row=torch.arange(24)).unflatten(0, (6, 4)) != 0
    expected = ged(drawn, cohort.readings, form="u", reader_form="u").mean()
    assert figures["ged_debiased"] == pytest.approx(float(expected), abs=1e-6)
    assert figures["diversity"] == pytest.approx(float(diversity(drawn).mean()), abs=1e-6)


def test_the_loss_is_the_networks_own_of_moved_masks(tmp_path):
    cohort = drawn_by_two(6)
    objective = make_objective(toy_config(tmp_path, "masks", objective={"kind": "masks", "flip": True}), cohort)
    seen = []

    class Network(torch.nn.Module):
        def forward(self, x, readings, draw):
            seen.append((x, readings, draw))
            return x.flatten(1).mean(1), {"mean": x.mean()}

    (batch,) = whole_batches(objective.config, torch.nn.Linear(1, 1), cohort, 0)
    loss, scores = objective.loss("main", {"main": Network()}, batch)
    (x, readings, draw) = seen[0]
    assert loss.item() == pytest.approx(float(scores["mean"]))
    assert readings.dtype == torch.uint8
    assert torch.equal(draw.slot, batch.slot)
    flipped = (x.flip(-1) - cohort.x).abs().amax((1, 2, 3)) < (x - cohort.x).abs().amax((1, 2, 3))
    assert 0 < int(flipped.sum()) < 6
    expected = torch.where(flipped.view(-1, 1, 1, 1), cohort.readings.flip(-1), cohort.readings)
    assert torch.equal(readings != 0, expected)


def test_the_majority_is_what_half_of_the_readers_have():
    readings = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 1, 2], [0, 1, 1, 1, 2], [0, 0, 1, 1, 2]], dtype=torch.uint8)
    assert majority(readings[None], 3).tolist() == [[[0, 0, 1, 1, 2]]]
    assert majority(readings[None, :2, 2:3], 3).tolist() == [[[1]]]  # one of two is half


def test_draws_that_hardly_differ_are_named(tmp_path):
    cohort = drawn_by_two(6)
    objective = make_objective(toy_config(tmp_path, "masks", objective={"kind": "masks"}), cohort)
    network = objective.players()["main"]
    for p in network.parameters():
        p.data.zero_()
    network.exists[-1].bias.data.fill_(30.0)
    with pytest.warns(CfxWarning, match=r"collapse: two draws differ by 0\.000"):
        assert objective.evaluate(network, cohort, 0)["diversity_ratio"] == 0


@pytest.mark.parametrize(
    ("cohort", "settings", "message"),
    [
        (Cohort(x=torch.zeros(8, 1, 8, 8)), {}, "cohort.readings: expected masks to train on, got none"),
        (
            Cohort(x=torch.zeros(8, 1, 8, 8), readings=torch.full((8, 2, 8, 8), 2, dtype=torch.uint8)),
            {},
            r"expected class numbers 0 \.\. 1, got 2",
        ),
        (drawn_by_two(8, (6, 8)), {}, "expected spatial sizes divisible by 4"),
    ],
)
def test_what_does_not_suit_is_refused(tmp_path, cohort, settings, message):
    with pytest.raises(InputError, match=message):
        make_objective(toy_config(tmp_path, "masks", objective={"kind": "masks"} | settings), cohort).players()
