"""The ladder: the same subjects on every rung, factors where they should be, and one thing changed at a time."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from scipy import stats

from cfx.core.errors import InputError
from cfx.data import BrainConfig, load_cohort
from cfx.data.brain import Population
from cfx.data.ladder import BANDS, RUNGS, Rung, between, lesioned, outside, rendered, rungs

CONFIG = BrainConfig(n=3, seed=5, size=32)
VOLUMES = BrainConfig(n=2, seed=5, size=16, dims=3)
PEOPLE = Population(BrainConfig(n=2000, seed=5))


@pytest.fixture(scope="module")
def made() -> dict:
    return {name: rung.make(CONFIG) for name, rung in RUNGS.items()}


def test_every_rung_has_images_of_the_base_cohort(made):
    base = load_cohort(CONFIG)
    for name, cohort in made.items():
        assert cohort.shape == base.shape, name
        assert len(cohort) == CONFIG.n
        changed = (cohort.x - base.x).flatten(1).abs().amax(1)
        assert (changed > 1e-3).all() or RUNGS[name].kind == "tolerated", name
        assert RUNGS[name].kind != "near" or changed.amax() > 0.05, name


def test_rows_are_the_same_subjects_where_there_are_subjects(made):
    names = load_cohort(CONFIG).ids
    assert rendered(CONFIG).ids == names
    alone = {name for name, cohort in made.items() if cohort.ids != names}
    assert alone == {"other-organ", "textures", "faces", "digits", "white-noise", "constant"}


def test_nothing_but_the_factor_changes():
    assert torch.equal(rendered(CONFIG).x, load_cohort(CONFIG).x)
    f = PEOPLE.factors(torch.arange(50))
    moved = between("gamma", 0.8, 0.95, PEOPLE, f)
    scanner = torch.arange(6) != 3
    assert torch.equal(moved.scanner[:, scanner], f.scanner[:, scanner])
    same = [k for k, v in vars(f).items() if isinstance(v, torch.Tensor) and torch.equal(v, getattr(moved, k))]
    assert sorted({*vars(f)} - {*same, "planted"}) == ["scanner"]


@pytest.mark.parametrize("side", BANDS)
@pytest.mark.parametrize("name", ["gamma", "noise", "ventricles"])
def test_a_tolerated_factor_is_a_draw_of_its_own_band(name, side):
    low, high = BANDS[side]
    f = PEOPLE.factors(torch.arange(2000))
    z = between(name, low, high, PEOPLE, f).column(name)[:, 0]
    u = (torch.special.ndtr(z.double()) - low) / (high - low)
    assert stats.kstest(u.numpy(), "uniform").statistic < 0.06  # F is measured on 4096 subjects


def test_bands_of_level_and_severity_stay_in_the_range_of_the_class():
    f = PEOPLE.factors(torch.arange(300))
    level = between("level", 0.05, 0.2, PEOPLE, f).level
    assert 4 + 22 * 0.03 < level.min() < level.max() < 4 + 22 * 0.22
    severity, y = between("severity", 0.8, 0.95, PEOPLE, f).severity, PEOPLE.labels(f.index)
    assert 0.11 < severity[y == 0].min() < severity[y == 0].max() < 0.15
    assert 1.07 < severity[y == 1].min() < severity[y == 1].max() < 1.2


def test_beyond_is_where_no_subject_of_the_cohort_is():
    f = PEOPLE.factors(torch.arange(500))
    assert f.scanner.abs().max() <= 2
    up = outside("gamma", 4.0, 1.0, PEOPLE, f)
    assert (up.scanner[:, 3] == 4).all()
    assert torch.equal(outside("bias", 3.0, 0.0, PEOPLE, f).scanner[:, :3], 3 * f.scanner[:, :3].sign())
    distances = [(RUNGS[f"noise-{s}"].make(CONFIG).x - load_cohort(CONFIG).x).abs().mean() for s in (3, 4, 6)]
    assert distances == sorted(distances)


def test_three_rungs_are_for_development_of_two_kinds():
    found = {r.name: r.kind for r in RUNGS.values() if r.development}
    assert found == {"bias-4": "beyond", "dark-lesion": "near", "bright-lesion": "near"}
    assert {r.kind for r in RUNGS.values()} == {"tolerated", "beyond", "near", "far"}
    assert all(name == r.name and r.strength for name, r in RUNGS.items())


def test_lesions_say_where_they_are(made):
    base = load_cohort(CONFIG)
    for name in ("dark-lesion", "bright-lesion", "cortical-lesion"):
        cohort = made[name]
        assert cohort.lesion.flatten(1).any(1).all()
        away = ~torch.nn.functional.max_pool2d(cohort.lesion.float(), 7, 1, 3).bool()
        assert (cohort.x - base.x).abs()[away].max() < 0.1
    assert made["tag"].lesion is None


def test_other_slices_show_another_amount_of_brain(made):
    area = {k: made[k].mask.float().mean() for k in ("slice-below", "slice-above", "gamma-low")}
    assert max(area["slice-below"], area["slice-above"]) < 0.8 * area["gamma-low"]


def test_upside_down_twice_is_the_image(made):
    assert torch.equal(made["upside-down"].x.flip(2), load_cohort(CONFIG).x)


def test_volumes_have_the_rungs_that_make_sense_there():
    names = {rung.name for rung in rungs(dims=3)}
    assert names < set(RUNGS)
    assert {"tag", "blur-4", "dark-lesion", "white-noise"} < names
    assert not names & {"slice-above", "faces", "level-low"}
    for name in ("dark-lesion", "gamma-up-6", "upside-down", "constant"):
        assert RUNGS[name].make(VOLUMES).shape == (1, 16, 16, 16)


def test_rungs_are_asked_for_by_name_and_come_in_the_order_of_the_ladder():
    assert [r.name for r in rungs(("faces", "tag", "gamma-low"))] == ["gamma-low", "tag", "faces"]
    with pytest.raises(InputError, match=r"ladder.rungs: expected names among .* got \['tga'\]"):
        rungs(("tga",))
    with pytest.raises(InputError, match="faces"):
        rungs(("faces",), dims=3)


def test_seed_and_index_alone_decide(made):
    few = CONFIG.model_copy(update={"n": 1, "start": 2})
    for name in ("motion", "dark-lesion", "noise-4", "tag"):
        assert (RUNGS[name].make(few).x - made[name].x[2:]).abs().max() < 1e-5, name


def test_real_lesions_come_from_a_file(tmp_path):
    rung = Rung("ms", "near", "", partial(lesioned, tmp_path / "none.npz"))
    with pytest.raises(InputError, match=r"lesions: expected an \.npz of packed masks"):
        replace(rung, kind="far").make(CONFIG)
