"""The error of a reconstruction, and what it is known for: blurred images pass."""

import torch

from cfx.core.scores import auroc
from cfx.data import BrainConfig, load_cohort
from cfx.data.shifts import Shift, apply
from cfx.models import load
from cfx.ood import build_detector, fit
from tests.ood.detectors import images
from tests.ood.reconstruction.known import LinearVae, ask, learn, maps


def test_the_score_is_what_the_autoencoder_leaves_out():
    x = images(3)
    left = x - LinearVae().decode(LinearVae().encode(x)[0])
    for error, expected in {"l1": left.abs(), "l2": left.square()}.items():
        found = build_detector("vae", error=error).fit(learn())(ask(x))
        torch.testing.assert_close(found.map, expected)
        torch.testing.assert_close(found.score, expected.flatten(1).mean(1))


def test_a_perceptual_distance_has_its_honest_name():
    found = build_detector("vae", error="perceptual").fit(learn())(ask(images(3), features=maps))
    assert list(found.statistics) == ["feature_distance"]
    assert found.map.shape == (3, 1, 8, 8)


def brains(root, n, start):
    """Brains that no shipped network was trained on."""
    return load_cohort(BrainConfig(n=n, seed=1, start=start, size=64, dims=2))


def test_blurred_brains_are_restored_better_than_sharp_ones_and_noisy_ones_worse(root):
    rows, x = brains(root, 8, 700_000), brains(root, 12, 710_000)
    vae = load(root / "checkpoints" / "brain64-vae")
    fitted = fit(rows, "vae", autoencoder=vae)
    own = fitted.score(x).score
    for shift, low, high in ((Shift("blur", 1.0), 0.0, 0.1), (Shift("noise", 0.5), 0.95, 1.0)):
        both = torch.cat([own, fitted.score(apply(shift, x)).score])
        assert low <= float(auroc(both, torch.arange(24) >= 12)) <= high
