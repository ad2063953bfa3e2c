"""The simulated cohort: one subject is one subject, and severity changes the disease and nothing else."""

import itertools
from dataclasses import replace
from functools import cache
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from cfx.core import geometry
from cfx.data.brain import (
    DISEASED_SEVERITY,
    HEALTHY_SEVERITY,
    BrainConfig,
    Confounder,
    Population,
    load_brain,
)
from cfx.data.subjects import SHAPE_MODES, Factor
from cfx.data.template import CENTRE, LEVELS

ALL = tuple(Confounder(kind=kind, q=0.8) for kind in ("shape", "tag", "implant", "ruler"))
GRIDS = [(64, 2, 128), (96, 2, 128), (32, 3, 8)]
SEVERITIES = (0.0, 0.15, 0.3, 0.5, 0.7, 0.9, 1.2)


def people(size=64, dims=2, confounders=(), seed=0):
    return Population(BrainConfig(size=size, dims=dims, confounders=confounders, seed=seed))


def at(factors, severity):
    """The same subjects at one severity."""
    return replace(factors, severity=torch.full_like(factors.severity, severity))


@cache
def series():
    """64 subjects at every severity of `SEVERITIES`, by severity."""
    group = people()
    factors = group.factors(torch.arange(64))
    return {s: group.render(at(factors, s)) for s in SEVERITIES}


def area(mask):
    """Pixels of each row's mask."""
    return mask.flatten(1).sum(1)


def correlation(a, b):
    """Of every row of `a` with every row of `b`."""
    a, b = (F.normalize(x.flatten(1) - x.flatten(1).mean(1, keepdim=True)) for x in (a, b))
    return a @ b.T


def corners(u):
    """Jacobian determinants at every corner of every cell: forward differences after each mirroring of the axes.

    An interpolated map is free of folds if they are all positive; forward differences alone see one corner a cell.
    """
    d = u.shape[1]
    for mirrored in itertools.product([1, -1], repeat=d):
        axes = [2 + k for k, sign in enumerate(mirrored) if sign < 0]
        yield geometry.jacobian_determinant(u.flip(axes) * torch.tensor(mirrored).view(1, d, *[1] * d))


class TestSubjects:
    @pytest.mark.parametrize(("size", "dims"), [(64, 2), (32, 3)])
    def test_rendering_again_is_the_same(self, size, dims):
        group = people(size, dims, ALL)
        factors = group.factors(torch.arange(4))
        once, again = group.render(factors), group.render(group.factors(torch.arange(4)))
        for name in ("x", "lesion", "brain"):
            assert torch.equal(getattr(once, name), getattr(again, name))

    def test_factors_do_not_depend_on_the_batch(self):
        group = people(confounders=ALL)
        every, some = group.factors(torch.arange(40)), group.factors(torch.tensor([31, 7]))
        for name in ("severity", "level", "shape", "scanner"):
            assert torch.equal(getattr(every, name)[[31, 7]], getattr(some, name))
        for kind, value in every.planted.items():
            assert torch.equal(value[[31, 7]], some.planted[kind])

    @pytest.mark.parametrize(("size", "dims"), [(64, 2), (32, 3)])
    def test_images_do_not_depend_on_the_batch(self, size, dims):
        group = people(size, dims)
        factors = group.factors(torch.arange(8))
        alone = torch.cat([group.render(factors[i : i + 1]).x for i in range(8)])
        assert torch.allclose(group.render(factors).x, alone, atol=1e-6)

    def test_a_range_is_the_same_subjects_as_in_a_larger_cohort(self):
        """Up to how many steps the flow of their batch took; another subject is more than ten times as far."""
        larger, part = (load_brain(BrainConfig(start=s, n=n, size=32, confounders=ALL)) for s, n in ((0, 16), (10, 4)))
        assert part.ids == larger.ids[10:14]
        assert torch.equal(part.y, larger.y[10:14])
        for name, column in part.covariates.items():
            assert torch.equal(column, larger.covariates[name][10:14])
        distance = (part.x - larger.x[10:14]).square().mean().sqrt()
        assert distance < 0.005
        assert (part.x - larger.x[11:15]).square().mean().sqrt() > 10 * distance

    def test_other_seeds_and_indices_are_other_subjects(self):
        a, b = (people(seed=seed).factors(torch.arange(500)) for seed in (0, 1))
        for x, y in ((a.shape, b.shape), (a.scanner, b.scanner), (a.shape[1:], a.shape[:-1])):
            assert torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1].abs() < 0.1

    def test_labels_are_balanced_and_severities_are_those_of_the_class(self):
        group, index = people(), torch.arange(4000)
        y, severity = group.labels(index), group.factors(index).severity
        assert y.float().mean() == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)
        for label, (low, high) in enumerate((HEALTHY_SEVERITY, DISEASED_SEVERITY)):
            found = severity[y == label]
            assert low <= found.min() < low + 0.02 < high - 0.02 < found.max() <= high
            assert torch.equal(group.severity(index, y)[y == label], found)

    def test_nuisance_factors_do_not_tell_the_class(self):
        factors = people().factors(torch.arange(4000))
        y = people().labels(factors.index).float()
        for column in (factors.level, *factors.shape.T, *factors.scanner.T):
            assert torch.corrcoef(torch.stack([column, y]))[0, 1].abs() < 4.5 / 4000**0.5
        assert LEVELS[0] <= factors.level.min() < factors.level.max() <= LEVELS[1]

    def test_one_subject_looks_the_same_at_every_size(self):
        images = {size: load_brain(BrainConfig(n=12, size=size)).x for size in (64, 96, 128)}
        for size in (96, 128):
            small = F.interpolate(images[size], size=(64, 64), mode="bilinear", antialias=True)
            table = correlation(images[64], small)
            assert table.diag().min() > 0.98
            assert torch.equal(table.argmax(1), torch.arange(12))


class TestShape:
    @pytest.mark.parametrize(("size", "dims", "n"), GRIDS)
    @pytest.mark.parametrize("confounders", [(), ALL[:1]], ids=["plain", "shape"])
    def test_no_subject_is_folded(self, size, dims, n, confounders):
        group = people(size, dims, confounders)
        factors = group.factors(torch.arange(n))
        worst = group.deformation(at(factors, DISEASED_SEVERITY[1]))
        assert min(j.min() for j in corners(worst)) > 0.03

    def test_the_fold_check_sees_a_single_turned_over_triangle(self):
        u = torch.zeros(1, 2, 5, 5)
        u[0, :, 2, 2] = torch.tensor([0.9, -0.9])
        assert min(j.min() for j in corners(u)) == pytest.approx(-0.8)

    @pytest.mark.parametrize(
        ("size", "dims", "n", "confounders"),
        [
            (64, 2, 256, ()),
            (64, 2, 256, ALL[:1]),
            (32, 3, 12, ()),
            (32, 3, 12, ALL[:1]),
        ],
    )
    def test_no_brain_is_cut_by_the_border(self, size, dims, n, confounders):
        group = people(size, dims, confounders)
        brain = group.render(group.factors(torch.arange(n))).brain
        rim = torch.ones(brain.shape[2:], dtype=torch.bool)
        rim[*[slice(1, -1)] * dims] = False
        assert (brain & rim).flatten(1).any(1).nonzero().flatten().tolist() == []

    @pytest.mark.parametrize(("size", "dims", "n"), GRIDS)
    def test_a_brain_is_one_piece_of_a_brains_size(self, size, dims, n):
        from scipy import ndimage

        group = people(size, dims)
        brain = group.render(group.factors(torch.arange(min(n, 32)))).brain
        assert all(ndimage.label(b[0].numpy())[1] == 1 for b in brain)
        volume = area(brain) * (204.8 / size) ** dims
        low, high = (14e3, 26e3) if dims == 2 else (1.4e6, 2.6e6)  # mm2 of a slice, mm3
        assert low < volume.min() < volume.max() < high


@pytest.mark.parametrize(("size", "dims"), [(64, 2), (32, 3)])
class TestParts:
    def test_ventricles_move_as_in_the_other_class_and_with_lesions_not_at_all(self, size, dims):
        group = people(size, dims)
        f = group.factors(torch.arange(4))
        other = group.twins(f)
        here, there, moved, lesions = (
            group.deformation(g)
            for g in (f, other, group.partly(f, other, "ventricles"), group.partly(f, other, "lesions"))
        )
        assert (here - there).abs().max() > 0.3
        torch.testing.assert_close(moved, there, atol=1e-4, rtol=0)
        torch.testing.assert_close(lesions, here, atol=1e-4, rtol=0)

    def test_severity_is_that_of_the_other_class_for_lesions_only_and_nothing_else_changes(self, size, dims):
        group = people(size, dims, ALL)
        f = group.factors(torch.arange(4))
        other = group.twins(f)
        assert torch.equal(group.partly(f, other, "ventricles").severity, f.severity)
        assert torch.equal(group.partly(f, other, "lesions").severity, other.severity)
        for part in ("ventricles", "lesions"):
            found = group.partly(f, other, part)
            assert torch.equal(found.shape[:, :-1], f.shape[:, :-1])
            assert torch.equal(found.scanner, f.scanner)
            assert found.planted == f.planted


class TestSeverity:
    def test_the_twin_of_the_twin_is_the_subject(self):
        config = BrainConfig(n=8, size=64, confounders=ALL)
        cohort, group = load_brain(config), Population(config)
        factors = group.factors(torch.arange(8))
        twin = replace(factors, severity=group.severity(factors.index, 1 - cohort.y))
        back = replace(twin, severity=group.severity(factors.index, cohort.y))
        assert torch.equal(cohort.x_true, group.render(twin).x)
        assert torch.equal(cohort.x, group.render(back).x)
        assert ((cohort.x - cohort.x_true).abs().flatten(1).amax(1) > 0.2).all()

    @pytest.mark.parametrize(("size", "dims"), [(64, 2), (32, 3)])
    def test_background_brain_outline_and_objects_stay(self, size, dims):
        group = people(size, dims, ALL)
        planted = {c.kind: torch.ones(6) for c in ALL}
        factors = replace(group.factors(torch.arange(6)), planted=planted)
        a, b = (group.render(at(factors, s)) for s in (0.0, 1.2))
        assert torch.equal(a.brain, b.brain)
        reach = 4 if dims == 2 else 3  # of the scanner's blur, in pixels
        pool = F.max_pool2d if dims == 2 else F.max_pool3d
        far = pool(a.brain.float(), 2 * reach + 1, 1, reach) == 0
        assert far.float().mean() > 0.1
        assert ((a.x - b.x).abs() * far).max() < 1e-6
        bare = group.render(replace(at(factors, 0.0), planted={"shape": planted["shape"]}))
        drawn = (a.x - bare.x > 0.5) & far
        assert area(drawn).min() > 20  # tag and ruler
        assert torch.allclose(a.x[drawn], b.x[drawn], atol=1e-6)

    @pytest.mark.parametrize(("size", "dims"), [(64, 2), (32, 3)])
    def test_the_noise_stays(self, size, dims):
        """What the noise adds to a pixel is the same at either severity, unless the pixel is clipped."""
        group = people(size, dims)
        factors = group.factors(torch.arange(6))
        silent = factors.scanner.clone()
        silent[:, 5] = -1e4
        renders = [
            group.render(at(replace(factors, scanner=scanner), severity)).x
            for severity in (0.0, 1.2)
            for scanner in (factors.scanner, silent)
        ]
        free = torch.stack([x.abs() < 1 for x in renders]).all(0)
        first, second = renders[0] - renders[1], renders[2] - renders[3]
        assert torch.allclose(first[free], second[free], atol=1e-6)
        assert first[free].std() == pytest.approx(0.024, rel=0.3)

    def test_no_disease_no_lesion(self):
        assert not series()[0.0].lesion.any()
        assert not series()[0.15].lesion.any()

    def test_lesions_grow(self):
        """From mild to diseased no subject's area shrinks; beyond, the growing ventricles squeeze some ripe lesions."""
        areas = {s: area(r.lesion) for s, r in series().items()}
        for a, b in itertools.pairwise((0.15, 0.3, 0.5, 0.7)):
            assert (areas[b] >= areas[a]).all()
            assert areas[b].sum() > areas[a].sum()
        assert areas[1.2].sum() > 1.2 * areas[0.7].sum()
        assert min(areas[s].min() for s in (0.7, 0.9, 1.2)) > 0

    @pytest.mark.parametrize(("size", "dims"), [(64, 2), (32, 3)])
    def test_lesions_grow_pixel_by_pixel_before_they_are_deformed(self, size, dims):
        group = people(size, dims)
        factors = group.factors(torch.arange(6))
        maps = group.grid.at(factors.level)
        soft = [group._lesions(at(factors, s), maps) for s in SEVERITIES]
        assert all((b >= a).all() for a, b in itertools.pairwise(soft))

    @pytest.mark.parametrize(("size", "dims"), [(64, 2), (96, 2), (32, 3)])
    def test_lesions_lie_in_the_brain(self, size, dims):
        group = people(size, dims)
        seen = group.render(at(group.factors(torch.arange(8)), 1.2))
        assert seen.lesion.any()
        assert not (seen.lesion & ~seen.brain).any()

    def test_lesions_are_darker_than_they_would_be_without_disease(self):
        healthy, diseased = series()[0.0], series()[1.2]
        ripe = diseased.lesion
        assert (healthy.x[ripe] - diseased.x[ripe]).median() > 0.3

    def test_the_ventricles_grow(self):
        """The dark area in the middle of the brain; single pixels at a wall may cross the threshold either way."""
        dark = {s: area((r.x < -0.4)[:, :, 20:44, 20:44]) for s, r in series().items()}
        for a, b in itertools.pairwise(SEVERITIES):
            assert (dark[b] >= dark[a] - 2).all()
            assert dark[b].sum() > 1.05 * dark[a].sum()
        assert (dark[1.2] >= dark[0.0] + 5).all()

    def test_the_deformed_ventricles_grow_in_every_subject(self):
        group = people()
        factors = group.factors(torch.arange(64))
        maps = group.grid.at(factors.level)
        walls = [geometry.warp(maps[:, 3:4], group.deformation(at(factors, s), maps)) < 0 for s in SEVERITIES]
        assert all((area(b) >= area(a)).all() for a, b in itertools.pairwise(walls))
        assert (area(walls[-1]) > 1.4 * area(walls[0])).all()


class TestCohort:
    @pytest.mark.parametrize(("size", "dims"), [(64, 2), (96, 2), (32, 3)])
    def test_values_fill_the_range(self, size, dims):
        cohort = load_brain(BrainConfig(n=4, size=size, dims=dims, confounders=ALL))
        for x in (cohort.x, cohort.x_true):
            assert (x.min(), x.amax() > 0.8, x.max() <= 1) == (-1, True, True)
            assert x[cohort.mask].std() > 0.2

    @pytest.mark.parametrize(("size", "dims"), [(64, 2), (32, 3)])
    def test_affines_and_spacing_place_the_images(self, size, dims):
        cohort = load_brain(BrainConfig(n=3, size=size, dims=dims))
        assert torch.allclose(cohort.spacing, torch.full((3, dims), 204.8 / size))
        for matrix, level in zip(cohort.affine, cohort.covariates["level"], strict=True):
            middle = [(size - 1) / 2] * dims + [0.0] * (3 - dims)
            centre = [*CENTRE[:2], CENTRE[2] if dims == 3 else level]
            assert torch.allclose(matrix @ torch.tensor([*middle, 1]), torch.tensor([*centre, 1]), atol=1e-4)

    def test_truth_columns_are_those_of_the_images(self):
        config = BrainConfig(n=6, confounders=ALL, start=3)
        cohort, group = load_brain(config), Population(config)
        factors = group.factors(torch.arange(3, 9))
        assert torch.equal(cohort.covariates["severity"], factors.severity)
        diseased = torch.maximum(cohort.covariates["severity"], cohort.covariates["severity_true"])
        assert ((diseased > 0.5) & (cohort.covariates["severity"] + cohort.covariates["severity_true"] < 1.4)).all()
        assert torch.equal(cohort.y == 1, cohort.covariates["severity"] == diseased)
        assert torch.equal(cohort.covariates["shape_trapezoid"], factors.shape[:, 2])
        assert cohort.ids[0] == "brain-0-3"
        assert cohort.classes == ["healthy", "diseased"]
        assert torch.equal(cohort.lesion, group.render(factors).lesion)


class TestLabelledByAPlantedFactor:
    """The class is the factor, and the true counterfactual changes it alone."""

    @pytest.mark.parametrize("kind", ["tag", "implant", "ruler", "scanner", "shape"])
    def test_the_truth_changes_the_factor_and_nothing_else(self, kind):
        config = BrainConfig(n=12, seed=4, confounders=(Confounder(kind=kind),), label=kind)
        cohort = load_brain(config)
        present = cohort.covariates[f"planted_{kind}"] > 0
        assert torch.equal(cohort.y, present.long())
        assert 0 < int(cohort.y.sum()) < 12
        assert cohort.classes == [f"no {kind}", kind]
        assert (cohort.x_true != cohort.x).flatten(1).any(1).all()
        assert torch.equal(cohort.covariates["severity"], cohort.covariates["severity_true"])

    def test_changing_a_tag_twice_returns_the_image(self):
        people = Population(BrainConfig(n=4, seed=4, confounders=(Confounder(kind="tag", strength=0.5),), label="tag"))
        factors = people.factors(torch.arange(4))
        twice = people.twins(people.twins(factors))
        assert torch.equal(twice.planted["tag"], factors.planted["tag"])

    def test_a_share_of_the_subjects_is_free_of_it(self):
        config = BrainConfig(n=400, seed=4, size=16, confounders=(Confounder(kind="scanner", share=0.25),))
        amplitude = Population(config).factors(torch.arange(400)).planted["scanner"]
        assert set(amplitude.tolist()) == {-1.0, 0.0, 1.0}
        assert abs(float((amplitude != 0).double().mean()) - 0.25) < 0.08

    @pytest.mark.parametrize(
        ("confounders", "label", "text"),
        [
            ((), "tag", "expected disease or one of the confounders"),
            ((Confounder(kind="shape", share=0.5),), "shape", "expects its share to be 1"),
        ],
    )
    def test_labels_that_make_no_sense(self, confounders, label, text):
        with pytest.raises(ValidationError, match=text):
            BrainConfig(confounders=confounders, label=label)


class TestMoved:
    """Exact shifts: one factor of every subject moved, the rest to the last bit as it was."""

    @pytest.mark.parametrize("factor", get_args(Factor))
    def test_one_factor_moves_and_nothing_else(self, factor):
        config = BrainConfig(n=40, seed=4, size=16, confounders=ALL)
        index = torch.arange(40)
        plain, moved = (Population(config.model_copy(update={"moved": m})).factors(index) for m in ({}, {factor: 1.5}))
        for name in ("severity", "level", "shape", "scanner"):
            a, b = getattr(plain, name), getattr(moved, name)
            different = (a != b).any(0).reshape(-1)
            if name == factor:
                torch.testing.assert_close(b, (a + 1.5).clamp(max=LEVELS[1]))
            elif different.any():  # a column of the shape or of the scanner
                assert torch.equal(b[:, different], a[:, different] + 1.5)
                assert factor in SHAPE_MODES or int(different.sum()) == (3 if factor == "bias" else 1)
        assert all(plain.planted[kind].equal(moved.planted[kind]) for kind in plain.planted)

    @pytest.mark.parametrize(("factor", "by"), [("gamma", 2.0), ("level", -5.0), ("size", 1.0), ("severity", 0.3)])
    def test_images_are_those_of_the_moved_subjects(self, factor, by):
        config = BrainConfig(n=6, seed=4, size=32)
        plain, still, moved = (
            load_brain(config.model_copy(update={"moved": m})) for m in ({}, {factor: 0.0}, {factor: by})
        )
        assert still.x.equal(plain.x)
        assert still.x_true.equal(plain.x_true)
        assert moved.y.equal(plain.y)
        group = Population(config.model_copy(update={"moved": {factor: by}}))
        factors = group.factors(torch.arange(6))
        assert moved.x.equal(group.render(factors).x)
        assert moved.x_true.equal(group.render(group.twins(factors)).x)
        further = load_brain(config.model_copy(update={"moved": {factor: 2 * by}}))
        change, more = ((c.x - plain.x).abs().mean() for c in (moved, further))
        assert 0 < change < more

    def test_severity_does_not_fall_below_none(self):
        cohort = load_brain(BrainConfig(n=8, seed=4, size=16, moved={"severity": -2.0}))
        assert (cohort.covariates["severity"] == 0).all()
        assert cohort.x.equal(cohort.x_true)

    def test_a_factor_there_is_not_is_refused(self):
        with pytest.raises(ValidationError, match="contrast"):
            BrainConfig(moved={"contrast": 1.0})
