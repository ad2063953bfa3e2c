"""The sets of a bench: rungs of the same subjects, other images on the same grid, names once, subjects numbered."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cfx.commands.bench.ladder import INSIDE, Ladder, Other, Shifts, drawn, shifts_of, units
from cfx.core.errors import InputError
from cfx.data import BrainConfig, NpzConfig, load_cohort

BRAINS = BrainConfig(n=4, seed=5, size=16)


@pytest.fixture(scope="module")
def inside():
    return load_cohort(BRAINS)


def images(path: Path, n: int = 9) -> NpzConfig:
    np.savez(path, test_images=np.random.default_rng(0).integers(0, 255, (n, 20, 20)).astype(np.uint8))
    return NpzConfig(path=path, split="test", labelled=False)


def test_rungs_and_other_sets_come_in_order(inside, tmp_path):
    others = {"noisy": Other(kind="far", data=images(tmp_path / "a.npz")), "around": Other(kind="near", made="rotated")}
    found = shifts_of(BRAINS, inside, Ladder(rungs=("tag", "gamma-low")), others, 0)
    assert [s.name for s in found] == [INSIDE, "gamma-low", "tag", "noisy", "around"]
    assert [s.kind for s in found] == [None, "tolerated", "near", "far", "near"]
    made = {s.name: s.make() for s in found}
    assert all(cohort.shape == inside.shape and len(cohort) == 4 for cohort in made.values())
    assert made[INSIDE] is inside
    assert made["tag"].ids == inside.ids == made["around"].ids
    assert all(name.startswith("noisy-test-") for name in made["noisy"].ids)
    assert torch.equal(made["around"].x, inside.x.rot90(1, (-2, -1)))


def test_a_set_may_be_smaller_and_may_get_the_histogram_of_the_others(inside, tmp_path):
    other = Other(kind="near", data=images(tmp_path / "b.npz", 2), matched=True)
    (_, found) = shifts_of(BRAINS, inside, None, {"organ": other}, 0)
    cohort = found.make()
    assert len(cohort) == 2
    assert (cohort.x[0].flatten().sort().values - inside.x[0].flatten().sort().values).abs().max() < 0.05


@pytest.mark.parametrize("made", ["inverted", "textures", "faces", "digits", "retina", "noise", "constant"])
def test_every_set_that_is_made_is_there(inside, made):
    (_, found) = shifts_of(BRAINS, inside, None, {made: Other(kind="far", made=made)}, 0)
    assert found.make().shape == inside.shape
    assert found.strength == made


def test_what_does_not_go_together_is_refused(inside, tmp_path):
    with pytest.raises(InputError, match="ladder: expected simulated subjects"):
        shifts_of(images(tmp_path / "c.npz"), inside, Ladder(), {}, 0)
    with pytest.raises(InputError, match="'tag'"):
        shifts_of(BRAINS, inside, Ladder(rungs=("tag",)), {"tag": Other(kind="far", made="noise")}, 0)
    with pytest.raises(ValueError, match="expected one of them, got both or neither"):
        Other(kind="far")
    for shifts, match in (({}, "at least one of them"), ({"a.b": {"kind": "far", "made": "noise"}}, "letters")):
        with pytest.raises(ValueError, match=match):
            Shifts.model_validate({"data": BRAINS, "reference": BRAINS, "shifts": shifts})


def test_real_lesions_are_one_more_rung(inside, tmp_path):
    found = shifts_of(BRAINS, inside, Ladder(rungs=("tag",), lesions=tmp_path / "none.npz"), {}, 0)
    assert [s.name for s in found] == [INSIDE, "tag", "ms-lesions"]
    with pytest.raises(InputError, match="packed masks"):
        found[-1].make()


def test_any_number_of_the_first_images_stands_for_all(tmp_path):
    images_, labels = np.zeros((90, 8, 8), np.uint8), np.repeat(np.arange(3), 30)  # sorted by class, as files are
    np.savez(
        tmp_path / "sorted.npz", test_images=images_ + 80 * labels[:, None, None].astype(np.uint8), test_labels=labels
    )
    source = NpzConfig(path=tmp_path / "sorted.npz", split="test")
    found = drawn(source, 30, 0)
    assert found.y.bincount(minlength=3).min() > 3
    assert drawn(source, 10, 0).ids == found.ids[:10]
    assert set(drawn(source, None, 1).ids) == {f"test-{k}" for k in range(90)}
    assert drawn(BRAINS, 2, 0).ids == load_cohort(BRAINS).ids[:2]


def test_rows_of_one_name_are_of_one_subject():
    found = units({"a": ("x", "y"), "b": ("y", "z", "x")})
    assert {k: v.tolist() for k, v in found.items()} == {"a": [0, 1], "b": [1, 2, 0]}
