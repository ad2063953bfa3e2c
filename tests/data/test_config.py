"""Sources of images as YAML names them."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

import cfx.data
from cfx.core.errors import CfxWarning, InputError
from cfx.data import BrainConfig, DataConfig, LidcConfig, NiftiConfig, NpzConfig, PngConfig, load_cohort, open_cohort

SOURCE = TypeAdapter(DataConfig)


def test_kind_says_which():
    assert isinstance(SOURCE.validate_python({"kind": "brain"}), BrainConfig)
    assert isinstance(SOURCE.validate_python({"kind": "lidc"}), LidcConfig)
    for kind, config in (("npz", NpzConfig), ("png", PngConfig), ("nifti", NiftiConfig)):
        assert SOURCE.validate_python({"kind": kind, "path": "x"}) == config(path="x")


def test_settings_survive_a_round_trip():
    config = NiftiConfig(path="scans", spacing=2, shape=(8, 9, 10), slice_axis="axial", classes=("a", "b"))
    assert SOURCE.validate_json(SOURCE.dump_json(config)) == config


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "dicom", "path": "x"}, "'brain', 'brain-readers', 'lidc', 'npz', 'png', 'nifti'"),
        ({"path": "x"}, "kind"),
        ({"kind": "png", "path": "x", "sizes": 3}, "sizes\n  Extra inputs are not permitted"),
        ({"kind": "npz"}, "path\n  Field required"),
    ],
)
def test_unknown_kinds_and_keys_are_refused(source, message):
    with pytest.raises(ValidationError, match=message):
        SOURCE.validate_python(source)


def test_one_function_reads_every_kind(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=np.array([0, 1, 1]))
    config = NpzConfig(path=tmp_path / "x.npz")
    assert load_cohort(config).x[:, 0].allclose(torch.from_numpy(images) / 127.5 - 1, atol=1e-6)


def test_unknown_name_lists_the_known():
    with pytest.raises(AttributeError, match=r"no attribute 'load'; it offers .*load_cohort"):
        _ = cfx.data.load


@pytest.mark.parametrize(("top", "warns"), [(1, True), (20, True), (30, False), (255, False), (0, False)])
def test_images_that_use_little_of_their_range_are_said(tmp_path, top, warns):
    images = np.zeros((2, 4, 4), np.uint8)
    images[1, 2, 2] = top
    np.savez(tmp_path / "a.npz", train_images=images)
    config = NpzConfig(path=tmp_path / "a.npz", labelled=False)
    lazy = config.model_copy(update={"lazy": True})
    with pytest.warns(CfxWarning, match="all pixels") if warns else nullcontext():
        open_cohort(lazy)
    with pytest.warns(CfxWarning, match=r"all pixels lie in \[-1, .* do `value_range`") if warns else nullcontext():
        load_cohort(config)
    load_cohort(config.model_copy(update={"value_range": (0.0, float(max(top, 1)))}))


@pytest.mark.parametrize("read", [load_cohort, open_cohort])
def test_plain_values_do_too(read):
    values = {"kind": "brain", "n": 2, "seed": 5, "size": 16}
    assert torch.equal(read(values)[[0, 1]].x, load_cohort(BrainConfig(n=2, seed=5, size=16)).x)
    with pytest.raises(InputError, match=r"unknown key `data\.sed`; did you mean `data\.seed`"):
        read(values | {"sed": 3})
    with pytest.raises(InputError, match=r"data\.kind: unknown choice 'brian'; did you mean 'brain'"):
        read(values | {"kind": "brian"})
