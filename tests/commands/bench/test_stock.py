"""Subjects with a part of the disease changed, labels that follow one part, and networks trained on them once."""

import pytest
import torch

from cfx.commands.bench.stock import Stock, marked, only, part_changed, tossed
from cfx.core.scores import auroc
from cfx.data import BrainConfig, load_cohort

GRIDS = [(64, 2, 24), (32, 3, 4)]


def stock(folder, **more):
    keys = {
        "n": 6, "reference": 16, "population": 3, "grid": {"size": 32, "dims": 2}, "trained": {}, "tag": None,
        "places": 2, "untrained": 2, "few": 3, "learn": 16, "steps": 3, "folder": folder,
    }  # fmt: skip
    return Stock(**keys | more)


@pytest.mark.parametrize(("size", "dims", "n"), GRIDS)
def test_the_parts_change_other_places_and_together_make_most_of_the_disease(size, dims, n):
    config = BrainConfig(n=n, seed=5, size=size, dims=dims)
    plain = load_cohort(config)
    v, s, d = (x - plain.x for x in (*(part_changed(config, p) for p in ("ventricles", "lesions")), plain.x_true))
    size_of = [float(e.square().sum()) for e in (v, s, d)]
    assert min(size_of[:2]) > 0.2 * size_of[2]
    assert float((v + s - d).square().sum()) < 0.35 * size_of[2]
    both = float((v * s).sum()) / (size_of[0] * size_of[1]) ** 0.5
    assert abs(both) < 0.35


def test_ventricles_move_without_a_lesion_and_lesions_come_without_the_ventricles():
    """A subject's lesions are dark on white matter; a wall that moves darkens only what is at the ventricles."""
    config = BrainConfig(n=64, seed=6)
    plain = load_cohort(config)
    gone = plain.lesion & (plain.y == 1).view(-1, 1, 1, 1)  # lesions that the other class does not have
    v, s = (part_changed(config, part) - plain.x for part in ("ventricles", "lesions"))
    assert float(s[gone].mean()) > 4 * abs(float(v[gone].mean()))


def test_only_one_part_follows_the_label():
    """Darkness in the middle says the label where the ventricles follow it, and little where they follow a coin."""
    config = BrainConfig(n=256, seed=7)
    scores = {}
    for part in ("ventricles", "lesions"):
        cohort = only(config, part)
        assert torch.equal(cohort.y, load_cohort(config).y)
        dark = (cohort.x[:, 0, 20:44, 22:42] < -0.2).double().flatten(1).mean(1)
        scores[part] = float(auroc(dark, cohort.y > 0))
    assert scores["ventricles"] > 0.7
    assert 0.3 < scores["lesions"] < 0.62


def test_half_of_the_images_are_marked_and_their_twins_are_the_others():
    plain = load_cohort(BrainConfig(n=40, seed=8, size=32))
    pattern = torch.zeros(1, 32, 32)
    pattern[0, :3, :3] = 0.5
    found = marked(plain, pattern, seed=1)
    has = found.y == 1
    assert 10 < int(has.sum()) < 30
    assert torch.equal(found.x[~has], plain.x[~has])
    assert torch.equal(found.x_true[has], plain.x[has])
    assert (found.x[has][:, :, :3, :3] == 0.5).all()
    assert torch.equal(found.x[:, :, 3:], plain.x[:, :, 3:])


def test_a_coin_is_fair_and_the_same_for_one_seed():
    plain = load_cohort(BrainConfig(n=8, seed=8, size=16))
    many = plain[torch.arange(512) % 8]
    assert 200 < int(tossed(many, 0).sum()) < 312
    assert torch.equal(tossed(many, 0), tossed(many, 0))
    assert not torch.equal(tossed(many, 0), tossed(many, 1))


def test_the_three_populations_are_different_people(tmp_path):
    who = [load_cohort(stock(tmp_path).brains(k)) for k in ("asked", "reference", "learn")]
    assert [len(c) for c in who] == [6, 16, 16]
    assert len({i for c in who for i in c.ids}) == 38


def test_a_case_knows_its_disease_its_lesions_and_what_can_be_read(tmp_path):
    some = stock(tmp_path)
    truth = torch.zeros(1, 32, 32, dtype=torch.bool)
    truth[0, 4, 4] = True
    case = some.case("x", [], truth, n=4)
    assert len(case.images) == len(case.disease) == len(case.lesion) == len(case.towards) == 4
    assert case.truth.shape == (4, 1, 32, 32)
    assert torch.equal(case.towards, 1 - case.images.y)
    assert torch.equal(case.disease, case.images.x_true)
    assert (case.lesion | ~case.images.lesion).all()


def test_a_small_network_is_trained_once(tmp_path):
    some = stock(tmp_path)
    cohort = load_cohort(some.brains("learn"))
    first, again = (some.small("little", cohort, channels=[4, 4]) for _ in range(2))
    assert torch.equal(first(cohort.x), again(cohort.x))
    assert (tmp_path / "little" / "checkpoint").is_dir()
