"""What a manifest holds of a denoiser builds it again."""

import pytest
import torch

from cfx.core.denoiser import Denoiser
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.models.denoiser import facts, make, parts
from cfx.models.kinds import MODEL, Manifest
from tests.models.networks import SMALL, randomise, small


def test_facts_and_weights_are_the_denoiser():
    schedule = Schedule.from_diffusers({"num_train_timesteps": 40, "prediction_type": "sample"})
    mine = Denoiser(randomise(small("patch-unet", classes=3)), schedule, classes=3, shape=(1, 16, 16))
    config = SMALL["patch-unet"] | {"spatial_dims": 2, "in_channels": 1, "classes": 3}
    theirs = make(Manifest(kind="denoiser", name="patch-unet", config=config, **facts(mine)))
    parts(theirs)[MODEL].load_state_dict(parts(mine)[MODEL].state_dict())
    x, t, label = torch.randn(2, 1, 16, 16), torch.tensor([7, 40]), torch.tensor([2, 0])
    assert torch.equal(theirs(x, t, label).mean, mine(x, t, label).mean)
    assert theirs.shape == (1, 16, 16)


def test_a_bare_network_is_refused():
    for ask in (facts, parts):
        with pytest.raises(InputError, match="model: expected a Denoiser, got PatchUnet"):
            ask(small("patch-unet"))
