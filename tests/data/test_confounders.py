"""Planted confounders: as often as asked, where they belong, and nowhere else."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from cfx.data import confounders
from cfx.data.brain import BrainConfig, Confounder, Population

OBJECTS = ("tag", "implant", "ruler")
# Rectangles (top, bottom, left, right) in mm from the top left corner that hold each object.
HOLDS = {"tag": (6, 32, 6, 28), "implant": (112, 144, 142, 174), "ruler": (16, 184, 182, 204.8)}


def people(kind, size=64, dims=2, **more):
    return Population(BrainConfig(size=size, dims=dims, confounders=(Confounder(kind=kind, **more),)))


def planted(group, kind, amplitude, n=6):
    """The same subjects with the confounder at one amplitude."""
    factors = group.factors(torch.arange(n))
    return group.render(replace(factors, planted={kind: torch.full((n,), amplitude)}))


def millimetres(group, shape):
    """Distance of pixel centres from the top and the left edge of the axial picture, in mm."""
    spacing = 204.8 / group.config.size
    p = [(torch.arange(n) + 0.5) * spacing for n in shape]
    if len(p) == 2:
        return torch.meshgrid(*p, indexing="ij")
    across, up, _ = torch.meshgrid(*p, indexing="ij")
    return 204.8 - up, across


@pytest.mark.parametrize("kind", ["shape", *OBJECTS])
@pytest.mark.parametrize("q", [0.0, 0.5, 0.8, 1.0])
def test_presence_equals_the_label_with_probability_q(kind, q):
    group, n = people(kind, q=q, strength=0.7), 4000
    factors = group.factors(torch.arange(n))
    y, amplitude = group.labels(factors.index), factors.planted[kind]
    assert amplitude.unique().tolist() == pytest.approx([-0.7 if kind == "shape" else 0, 0.7])
    agree = ((amplitude > 0) == (y == 1)).double()
    bound = 4 * (q * (1 - q) / n) ** 0.5
    for label in (0, 1):  # within either class
        assert agree[y == label].mean() == pytest.approx(q, abs=1.5 * bound)
    assert agree.mean() == pytest.approx(q, abs=bound)


def test_confounders_are_drawn_independently():
    both = Population(BrainConfig(confounders=(Confounder(kind="tag"), Confounder(kind="ruler"))))
    drawn = both.factors(torch.arange(4000)).planted
    assert torch.corrcoef(torch.stack([drawn["tag"], drawn["ruler"]]))[0, 1].abs() < 4.5 / 4000**0.5


def test_planting_leaves_every_other_factor():
    plain = Population(BrainConfig()).factors(torch.arange(50))
    more = Population(BrainConfig(confounders=(Confounder(kind="tag"), Confounder(kind="shape"))))
    other = more.factors(torch.arange(50))
    for name in ("severity", "level", "shape", "scanner"):
        assert torch.equal(getattr(plain, name), getattr(other, name))


@pytest.mark.parametrize(("size", "dims"), [(64, 2), (32, 3)])
@pytest.mark.parametrize("kind", ["shape", *OBJECTS])
def test_amplitude_zero_changes_no_bit(kind, size, dims):
    group = people(kind, size, dims)
    bare = group.render(replace(group.factors(torch.arange(6)), planted={}))
    assert torch.equal(planted(group, kind, 0.0).x, bare.x)


@pytest.mark.parametrize(("size", "dims"), [(64, 2), (96, 2), (32, 3)])
@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_changes_its_own_pixels_only(kind, size, dims):
    """Its outline is the same for every subject and lies where the object belongs."""
    group = people(kind, size, dims)
    on, off = planted(group, kind, 1.0), planted(group, kind, 0.0)
    changed = on.x != off.x
    assert torch.equal(on.brain, off.brain)
    assert torch.equal(on.lesion, off.lesion)
    assert (changed == changed[:1]).all()
    down, right = millimetres(group, changed.shape[2:])
    top, bottom, left, wide = HOLDS[kind]
    place = (down > top) & (down < bottom) & (right > left) & (right < wide)
    assert not changed[0, 0][~place].any()


@pytest.mark.parametrize("size", [96, 128, 256])
@pytest.mark.parametrize(("kind", "ink"), [("tag", 0.95 * 217.75), ("implant", 207.7), ("ruler", 0.9 * 299.2)])
def test_an_object_has_its_ink_in_square_millimetres(kind, ink, size):
    """Two strokes of an L; a disc of 8 mm with a soft rim; eight short ticks and a long one.

    Straight edges fall on whole pixels, so a coarse grid has up to a third more or less of them.
    """
    drawn = confounders.burn_in(torch.zeros(1, 1, size, size), {kind: torch.ones(1)}, 204.8 / size)
    assert drawn.sum() * (204.8 / size) ** 2 == pytest.approx(ink, rel=0.08 if size == 256 else 0.3)


@pytest.mark.parametrize(("kind", "value"), [("tag", 0.95), ("ruler", 0.9)])
def test_strength_blends_between_background_and_ink(kind, value):
    """In a black picture, ink of strength a has a times its full grey value."""
    black = torch.zeros(3, 1, 64, 64)
    drawn = confounders.burn_in(black, {kind: torch.tensor([0.25, 1.0, 7.0])}, 3.2)
    assert drawn.flatten(1).amax(1).tolist() == pytest.approx([value / 4, value, value])
    assert torch.allclose(4 * drawn[0], drawn[1])


def test_objects_are_the_same_at_any_resolution():
    """Ink at 3.2 mm is the mean of the ink at 0.8 mm, up to the steps of the coarse grid."""
    for kind in OBJECTS:
        coarse, fine = (
            confounders.burn_in(torch.zeros(1, 1, n, n), {kind: torch.ones(1)}, 204.8 / n) for n in (64, 256)
        )
        small = torch.nn.functional.avg_pool2d(fine, 4)
        assert torch.corrcoef(torch.stack([coarse.flatten(), small.flatten()]))[0, 1] > 0.85
        assert coarse.sum() == pytest.approx(float(small.sum()), rel=0.35)


def test_planted_shape_tells_masks_apart():
    """A direction learnt from some subjects' masks ranks others by their planted shape, despite natural variation."""
    group = people("shape")
    narrow, broad = (planted(group, "shape", a, 64).brain.float().flatten(1) for a in (1.0, -1.0))
    direction = narrow[:32].mean(0) - broad[:32].mean(0)
    one, other = narrow[32:] @ direction, broad[32:] @ direction
    assert (one > other).all()  # the same subject, either way
    assert (one[:, None] > other[None]).float().mean() > 0.95


def test_planted_shape_is_graded_by_its_strength():
    group = people("shape")
    plain = planted(group, "shape", 0.0).brain
    changed = [(planted(group, "shape", a).brain != plain).flatten(1).sum(1) for a in (0.25, 0.5, 1.0)]
    assert (changed[0] < changed[1]).all()
    assert (changed[1] < changed[2]).all()


def test_planted_shape_is_not_in_the_span_of_the_natural_modes():
    """The part of its velocity within the head that no mix of the natural modes gives is a large one."""
    grid, spacing = (64, 64), 3.2
    modes = torch.cat([torch.eye(4), torch.zeros(4, 1)], 1)
    natural = confounders.shape_velocity(modes, None, grid, spacing)
    bent = confounders.shape_velocity(torch.zeros(1, 5), torch.ones(1), grid, spacing)
    p = torch.arange(64) - 31.5
    head = (p[:, None] ** 2 + p[None] ** 2).sqrt() * spacing < 85
    a, b = natural[:, :, head].flatten(1).T, bent[:, :, head].flatten(1).T
    rest = b - a @ torch.linalg.lstsq(a, b).solution
    assert rest.norm() > 0.5 * b.norm()


@pytest.mark.parametrize("bad", [{"q": 1.1}, {"q": -0.1}, {"strength": -1.0}, {"kind": "hat"}, {"colour": 1}])
def test_nonsense_is_refused(bad):
    with pytest.raises(ValidationError, match=next(iter(bad))):
        Confounder(**{"kind": "tag", **bad})
