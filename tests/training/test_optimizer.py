"""The learning rate over time, and who learns at which."""

import pytest
import torch
from safetensors.torch import load_file

from cfx.training import train
from cfx.training.optimizer import rate_at
from tests.training.toys import toy_cohort, toy_config


def weights(out):
    return load_file(out / "checkpoint" / "model.safetensors")


def test_rate_warms_up_and_falls_along_a_cosine(tmp_path):
    optimizer = toy_config(tmp_path, optimizer={"lr": 1.0, "warmup": 4}).optimizer
    assert rate_at(optimizer, 0, 100) == pytest.approx(0.25)
    assert rate_at(optimizer, 50, 100) == pytest.approx(0.5)
    assert rate_at(optimizer, 100, 100) == pytest.approx(0)


def test_class_embeddings_learn_at_their_own_rate(tmp_path):
    def after(steps, factor):
        optimizer = {"lr": 1e-2, "warmup": 0, "cosine": False, "class_lr": factor}
        train(toy_config(tmp_path / f"{steps}-{factor}", steps=steps, ema=None, optimizer=optimizer), toy_cohort())
        return weights(tmp_path / f"{steps}-{factor}")["body.class_embedding.weight"]

    # The output layer and the last of each residual block start at zero, so the embedding first has a gradient at
    # the third step; the rest of the network is then the same in both runs.
    start = after(2, 10)
    assert torch.equal(start, after(2, 1))
    ten, one = after(3, 10) - start, after(3, 1) - start
    assert one.abs().max() > 1e-3
    assert torch.allclose(ten, 10 * one, atol=2e-6)
