"""Encoders trained by contrast know an image again, and their loss is the same in any batch."""

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.models import load
from cfx.models.features import PooledFeatures
from cfx.training import train
from cfx.training.config import make_objective
from cfx.training.objectives import Batch
from tests.training.toys import toy_config


def blobs(n, space, seed=0):
    """Images that differ from each other in their coarse pattern."""
    coarse = torch.rand((n, 1, *[2] * len(space)), generator=torch.Generator().manual_seed(seed))
    return Cohort(x=torch.nn.functional.interpolate(coarse, size=space) - 0.5)


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
def test_it_tells_images_apart(tmp_path, space):
    objective = {"kind": "features", "dims": 8, "keys": 16, "flip": False, "shift": 0, "noise": 0.2, "contrast": 0.1}
    more = {"objective": objective, "optimizer": {"lr": 1e-2, "warmup": 0}}
    cohort = blobs(60, space)
    before = train(toy_config(tmp_path / "a", "features", steps=1, **more), cohort).figures
    result = train(toy_config(tmp_path / "b", "features", steps=80, **more), cohort)
    assert result.figures["loss"] < 0.8 * before["loss"]
    assert result.figures["matched"] >= 0.5  # one in twelve by chance
    encoder = load(result.checkpoint)
    assert isinstance(encoder, PooledFeatures)
    with torch.no_grad():
        assert encoder(cohort.x).shape == (60, 8)


def test_a_row_is_not_told_apart_from_itself(tmp_path):
    """All keys are views of the one row there is: nothing is left but the positive."""
    cohort = blobs(1, (8, 8))
    objective = make_objective(toy_config(tmp_path, "features"), cohort)
    row = torch.zeros(3, dtype=torch.long)
    batch = Batch(cohort.x.repeat(3, 1, 1, 1), None, torch.arange(3), 0, 4, row)
    loss, _ = objective.loss("main", objective.players(), batch)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_keys_are_other_rows_every_step_and_the_same_for_every_part(tmp_path):
    cohort = blobs(40, (8, 8))
    objective = make_objective(toy_config(tmp_path, "features"), cohort)
    whole = Batch(cohort.x[:8], None, torch.arange(8), 0, 4, torch.arange(8))
    part = Batch(cohort.x[4:8], None, torch.arange(4, 8), 0, 4, torch.arange(4, 8))
    later = Batch(cohort.x[:8], None, torch.arange(8), 0, 5, torch.arange(8))
    assert torch.equal(objective.others(whole).row, objective.others(part).row)
    assert not torch.equal(objective.others(whole).row, objective.others(later).row)
    assert len(objective.others(whole).row) == 16
