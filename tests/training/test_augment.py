"""Augmentations move images, and masks along with them; each row and each view by draws of its own."""

import pytest
import torch

from cfx.training.augment import AugmentConfig, _shift, augment, moved
from cfx.training.objectives import whole_batch
from tests.training.toys import toy_cohort


class TestAugment:
    def test_no_augmentation_changes_nothing(self):
        batch = whole_batch(toy_cohort(5), 0, 0, torch.device("cpu"))
        assert torch.equal(augment(AugmentConfig(kind="any"), batch), batch.x)

    def test_flip_mirrors_about_half_of_the_rows(self):
        batch = whole_batch(toy_cohort(400), 0, 0, torch.device("cpu"))
        y = augment(AugmentConfig(kind="any", flip=True), batch)
        same = (y == batch.x).flatten(1).all(1)
        mirrored = (y == batch.x.flip(-1)).flatten(1).all(1)
        assert (same ^ mirrored).all()
        assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=0.08)

    def test_shift_moves_pixels_and_repeats_the_edge(self):
        x = torch.arange(9.0).reshape(1, 1, 3, 3)
        assert _shift(x, torch.tensor([[1, 0]])).flatten().tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5]
        assert _shift(x, torch.tensor([[0, -1]])).flatten().tolist() == [1, 2, 2, 4, 5, 5, 7, 8, 8]

    def test_noise_and_contrast_stay_in_range_and_within_their_limits(self):
        batch = whole_batch(toy_cohort(50), 0, 0, torch.device("cpu"))
        noised = augment(AugmentConfig(kind="any", noise=0.2), batch) - batch.x
        spread = noised.flatten(1).std(1)
        assert spread.max() < 0.25
        assert spread.std() > 0.02  # every row draws its own level
        scaled = augment(AugmentConfig(kind="any", contrast=0.3), batch)
        assert (scaled.abs() <= 1.3 * batch.x.abs() + 1e-6).all()
        assert scaled.abs().max() <= 1

    def test_views_are_independent_draws(self):
        batch = whole_batch(toy_cohort(200), 0, 0, torch.device("cpu"))
        flip = AugmentConfig(kind="any", flip=True)
        first, second = ((augment(flip, batch, view) == batch.x).flatten(1).all(1) for view in (0, 1))
        assert float((first == second).float().mean()) == pytest.approx(0.5, abs=0.12)

    def test_a_mask_goes_where_its_image_goes(self):
        cohort = toy_cohort(60)
        batch = whole_batch(cohort, 0, 0, torch.device("cpu"))
        config = AugmentConfig(kind="any", flip=True, shift=2)
        bright = batch.x > batch.x.flatten(1).mean(1).reshape(-1, 1, 1, 1)
        found = augment(config, batch) > batch.x.flatten(1).mean(1).reshape(-1, 1, 1, 1)
        assert torch.equal(moved(config, bright, batch), found)
        assert not torch.equal(found, bright)
