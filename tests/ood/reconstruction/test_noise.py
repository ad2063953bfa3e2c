"""Smooth noise: unit mean square, smooth over its lattice, the same in all directions, from its counter alone."""

import pytest
import torch

from cfx.ood.reconstruction.noise import _octave, octaves

ROWS = torch.arange(40)


def likeness(n, lag, axis):
    """Correlation of a field with itself, shifted."""
    length = n.shape[axis] - lag
    return float((n.narrow(axis, 0, length) * n.narrow(axis, lag, length)).mean() / n.square().mean())


@pytest.mark.parametrize("shape", [(1, 32, 48), (2, 16, 12, 20)])
def test_every_draw_has_mean_square_one_and_mean_near_zero(shape):
    n = octaves(shape, seed=0, row=ROWS)
    assert n.shape == (40, *shape)
    torch.testing.assert_close(n.flatten(1).square().mean(1), torch.ones(40))
    assert abs(float(n.mean())) < 0.1


def test_a_draw_depends_on_its_counter_alone():
    whole = octaves((2, 16, 16), seed=1, row=ROWS)
    assert torch.equal(whole[7:8], octaves((2, 16, 16), seed=1, row=torch.tensor([7])))
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0, 0], whole[0, 1])
    assert not torch.equal(whole, octaves((2, 16, 16), seed=2, row=ROWS))


def test_coarse_octaves_are_smooth_and_fine_ones_rough_along_every_axis():
    for axis in (2, 3):
        coarse, fine = (octaves((1, 48, 48), seed=0, row=ROWS, period=p, count=1) for p in (24.0, 2.0))
        assert likeness(coarse, 1, axis) > 0.95
        assert likeness(coarse, 24, axis) < 0.3
        assert likeness(fine, 2, axis) < 0.4


def test_gradient_noise_is_zero_at_the_nodes_and_continuous(monkeypatch):
    import cfx.ood.reconstruction.noise as module

    monkeypatch.setattr(module, "uniform", lambda shape, **_: torch.zeros(1, *shape))
    n = _octave((25, 25), 8.0, 0, ROWS, 0)
    assert float(n[:, ::8, ::8].abs().max()) == 0
    assert float(n.diff(dim=1).abs().max()) < 0.4
    assert float(n.abs().max()) < 1.5


def test_octaves_below_a_voxel_are_left_out():
    assert torch.equal(
        octaves((1, 8, 8), seed=0, row=ROWS, period=4.0, count=3),
        octaves((1, 8, 8), seed=0, row=ROWS, period=4.0, count=9),
    )
