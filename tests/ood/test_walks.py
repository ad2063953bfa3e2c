"""The way back from noise: as the solvers of `cfx.core` go, with no version knowing of another."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.core.solvers import ddim_step, sample
from cfx.ood import walks
from cfx.ood.walks import ancestral, descend, draws, images_of, in_groups, noised, signal, start_grid
from tests.ood.detectors import SCHEDULE, GaussianGenerator, images
from tests.ood.reconstruction.known import CodeGenerator, ask

GRIDS = [[12, 0], [40, 25, 10, 0], [90, 60, 30, 10, 0]]


def started(x, grids=GRIDS):
    """Versions of images at the first times of grids."""
    return noised(SCHEDULE, x[None], [grid[0] for grid in grids], draws(x, range(len(grids)), 0, 1))


def test_noise_is_one_for_all_images_and_another_for_each_version_and_draw():
    x = images(3)
    eps = draws(x, [4, 5], seed=0, stream=1)
    assert eps.shape == (2, 1, 1, 8, 8)
    assert torch.equal(eps[1], draws(x[:1], [5], seed=0, stream=1)[0])
    assert not torch.equal(eps[0], eps[1])
    assert not torch.equal(eps, draws(x, [4, 5], seed=0, stream=2))


def test_versions_are_noised_to_their_own_times():
    x = images(3)
    x_t, eps = started(x), draws(x, range(3), 0, 1)
    for k, grid in enumerate(GRIDS):
        torch.testing.assert_close(x_t[k], SCHEDULE.noised(x, grid[0], eps[k].expand_as(x)))


def test_each_start_goes_back_as_ddim_goes_alone():
    x, batch = images(3), ask(images(3))
    back = descend(batch, started(x), GRIDS)
    for k, grid in enumerate(GRIDS):
        torch.testing.assert_close(back[k], sample(ddim_step, GaussianGenerator(), started(x)[k], grid))
    assert batch.spent.unet_forward.tolist() == [1 + 3 + 4] * 3


def test_the_starting_versions_are_left_as_they_were():
    x_t = started(images(2))
    before = x_t.clone()
    descend(ask(images(2)), x_t, GRIDS)
    assert torch.equal(x_t, before)


def test_the_last_ancestral_step_is_the_estimate_in_range():
    far = 30 * images(2)[None]
    batch = ask(images(2), generator=GaussianGenerator(variance=100.0))
    found = ancestral(batch, far, 5, 0, torch.zeros(1, 1, 1, 8, 8))
    assert float(found.abs().max()) == 1
    torch.testing.assert_close(found[0], GaussianGenerator(variance=100.0)(far[0], 5).mean.clamp(-1, 1))


def test_images_are_their_own_signal_and_codes_are_counted():
    x = images(2)
    plain, latent = ask(x), ask(x, generator=CodeGenerator())
    assert signal(plain) is plain.x
    z = signal(latent)
    assert z.shape == (2, 1, 4, 4)
    assert images_of(latent, torch.stack([z, z, z])).shape == (3, 2, 1, 8, 8)
    assert latent.spent.autoencoder.tolist() == [1 + 3] * 2
    assert plain.spent.autoencoder.tolist() == [0, 0]


def test_groups_are_as_large_as_memory_should_bear(monkeypatch):
    seen = []

    def of(which):
        seen.append(which)
        return torch.tensor(which)

    monkeypatch.setattr(walks, "_VOXELS", 3 * 64 * 2)
    assert in_groups(ask(images(2)), 7, of).tolist() == list(range(7))
    assert [len(which) for which in seen] == [3, 3, 1]


def test_a_walk_has_as_many_steps_as_asked_or_as_there_are():
    assert len(start_grid(SCHEDULE, 0.7, 10)) == 11
    short = start_grid(SCHEDULE, 0.2, 50)
    assert short == list(range(SCHEDULE.time_of(0.2), -1, -1))


def test_levels_that_share_a_time_are_one_and_too_few_are_refused():
    assert walks.times_of(SCHEDULE, [0.5, 0.9, 0.1, 0.5001]) == sorted(SCHEDULE.time_of(s) for s in (0.1, 0.5, 0.9))
    coarse = Schedule(torch.tensor([0.9, 0.1]))
    with pytest.raises(InputError, match=r"generator: expected a schedule with at least 3 .* got 2 of its 2"):
        walks.times_of(coarse, [0.1, 0.5, 0.9])
