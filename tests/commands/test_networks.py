"""Networks by the keys they stand under: each is opened for what it is for."""

import torch

from cfx.commands.networks import Networks, arguments, opened_all, prints
from cfx.core.denoiser import Generative
from cfx.models.features import FeatureMaps

CPU = torch.device("cpu")
CLASSIFIER = "checkpoints/brain64-classifier"


def test_every_key_opens_its_network_and_fits_the_arguments_of_fit():
    given = Networks(
        generator="tests.ood.detectors:GaussianGenerator", classifier=CLASSIFIER, ensemble=(CLASSIFIER, CLASSIFIER),
        features=CLASSIFIER,
    )  # fmt: skip
    assert [key for key, _ in given.named()] == ["generator", "classifier", "features", "ensemble.0", "ensemble.1"]
    found = opened_all(given, CPU)
    assert isinstance(found["generator"], Generative)
    assert isinstance(found["features"], FeatureMaps)
    assert arguments(found)["ensemble"] == (found["ensemble.0"], found["ensemble.1"])
    assert set(arguments(found)) == {"generator", "classifier", "features", "ensemble"}
    known = prints(given, found)
    assert known["classifier"] == known["features"] == known["ensemble.1"] != known["generator"]


def test_no_network_is_none():
    assert opened_all(Networks(), CPU) == {}
    assert arguments({}) == {"ensemble": ()}
