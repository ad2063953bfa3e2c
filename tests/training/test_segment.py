"""Segmenters learn a mask that moves along with its image."""

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.models import load, read_manifest
from cfx.training import train
from cfx.training.config import make_objective
from cfx.training.losses import binary_cross_entropy, soft_dice
from cfx.training.objectives import whole_batches
from tests.training.toys import balls, toy_config


def scenes(n, space):
    """Bright balls on noise, none in every fourth row; the ball is the lesion."""
    lesion = balls(2.0 * (torch.arange(n) % 4 > 0), space) & (torch.arange(n) % 4 > 0).view(-1, 1, *[1] * len(space))
    noise = 0.2 * torch.rand((n, 1, *space), generator=torch.Generator().manual_seed(0))
    return Cohort(x=noise - 0.5 + 0.6 * lesion, lesion=lesion)


@pytest.mark.parametrize("space", [(8, 8), (9, 8, 7)])
def test_it_finds_the_lesion(tmp_path, space):
    cohort = scenes(32, space)
    config = toy_config(
        tmp_path, "segmenter", objective={"kind": "segmenter", "shift": 1, "noise": 0.05}, steps=60,
        optimizer={"lr": 1e-2, "warmup": 0},
    )  # fmt: skip
    result = train(config, cohort)
    assert result.figures["dice"] > 0.9
    segmenter = load(result.checkpoint)
    with torch.no_grad():
        logits = segmenter(cohort.x)
    assert logits.shape == cohort.lesion.shape
    assert float(((logits > 0) == cohort.lesion).float().mean()) > 0.97
    assert read_manifest(result.checkpoint).classes == ("lesion",)


def test_the_loss_is_cross_entropy_and_dice(tmp_path):
    cohort = scenes(6, (8, 8))
    settings = {"kind": "segmenter", "dice_weight": 0.5}
    objective = make_objective(toy_config(tmp_path, "segmenter", objective=settings), cohort)
    network = objective.players()["main"]
    (batch,) = whole_batches(objective.config, network, cohort, 0)
    loss, scores = objective.loss("main", {"main": network}, batch)
    logits = network(cohort.x)
    overlap = soft_dice(logits.sigmoid(), cohort.lesion).mean()
    expected = binary_cross_entropy(logits, cohort.lesion).mean() + 0.5 * (1 - overlap)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert scores["dice"].item() == pytest.approx(overlap.item(), rel=1e-5)


def test_rows_without_the_region_do_not_count_in_its_dice(tmp_path):
    cohort = scenes(8, (8, 8))
    objective = make_objective(toy_config(tmp_path, "segmenter", objective={"kind": "segmenter"}), cohort)

    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return torch.where(x > -0.2, 5.0, -5.0)

    assert objective.evaluate(Oracle(), cohort, 0)["dice"] == 1
    assert "dice" not in objective.evaluate(Oracle(), cohort[torch.tensor([0, 4])], 0)


def test_a_cohort_without_masks_is_refused(tmp_path):
    cohort = Cohort(x=torch.zeros(4, 1, 8, 8))
    for region in ("lesion", "mask"):
        config = toy_config(tmp_path, "segmenter", objective={"kind": "segmenter", "region": region})
        with pytest.raises(InputError, match=rf"cohort\.{region}: expected masks"):
            make_objective(config, cohort)
