"""Networks by name: what they are built from, and what is refused."""

import pytest

from cfx.core.errors import InputError
from cfx.models import BUILDERS, build, kind
from tests.models.networks import SMALL


def test_every_builder_has_a_small_case():
    assert set(SMALL) == set(BUILDERS)


def test_every_network_says_what_it_is_for():
    assert {kind(name) for name in BUILDERS} == {"denoiser", "vae", "classifier", "segmenter", "mask-sampler"}
    assert kind("patch-unet") == "denoiser"


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError, match=r"expected one of \['autoencoder-kl', 'cnn'.*got 'resnet'"):
        build("resnet")


def test_unknown_and_missing_keywords_are_named():
    with pytest.raises(InputError, match=r"network cnn: unknown keys \['widths'\]"):
        build("cnn", spatial_dims=2, in_channels=1, out_channels=1, widths=3)
    with pytest.raises(InputError, match=r"network cnn: missing keys \['out_channels'\]"):
        build("cnn", spatial_dims=2, in_channels=1)


def test_a_value_the_network_refuses_is_an_input_error():
    with pytest.raises(InputError, match="spatial_dims: expected 2 or 3, got 4"):
        build("cnn", spatial_dims=4, in_channels=1, out_channels=1)


@pytest.mark.parametrize("name", ["cnn", "residual-unet", "unet", "convnext", "autoencoder-kl"])
def test_no_widths_are_one_line(name):
    with pytest.raises(InputError, match=f"network {name}: channels: expected at least one entry, got none"):
        build(name, spatial_dims=2, in_channels=1, channels=[], **({} if "kl" in name else {"out_channels": 1}))
