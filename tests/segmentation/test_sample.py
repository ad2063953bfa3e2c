"""The same seed gives the same masks for any batch size, number of masks and division of the images."""

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.models.samplers import MaskSampler
from cfx.segmentation import Drawn, sample_masks


class Coin(MaskSampler):
    """Every voxel by itself, with the brightness of the image as its probability; counts what it is asked."""

    nfe = 3
    multiple = 4

    def __init__(self, classes=2):
        super().__init__(classes)
        self.encoded = self.drawn = 0

    def forward(self, x, readings, draw):
        raise NotImplementedError

    def encode(self, x):
        self.encoded += len(x)
        return ((x[:, 0] + 1) / 2, x[:, 0].flatten(1).sum(1))

    def draw(self, code, *, seed, row):
        self.drawn += len(row)
        p, _ = code
        return (uniform(p.shape[1:], seed=seed, row=row, stream=64) < p).to(torch.uint8)


def images(n=5, space=(8, 8)):
    return torch.rand((n, 1, *space), generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("space", [(8, 8), (4, 8, 4)])
def test_batches_numbers_and_divisions_change_nothing(space):
    x = images(5, space)
    whole = sample_masks(x, Coin(), 6, seed=2)
    assert whole.masks.shape == (5, 6, *space)
    for size in (1, 4, 7, 1000):
        assert torch.equal(sample_masks(x, Coin(), 6, seed=2, batch_size=size).masks, whole.masks)
    assert torch.equal(sample_masks(x, Coin(), 3, seed=2).masks, whole.masks[:, :3])
    part = sample_masks(x[3:], Coin(), 6, seed=2, rows=torch.tensor([3, 4]))
    assert torch.equal(part.masks, whole.masks[3:])
    assert part.row.tolist() == [3, 4]
    assert not torch.equal(sample_masks(x, Coin(), 6, seed=3).masks, whole.masks)


def test_an_image_is_looked_at_once_and_every_draw_is_counted():
    coin = Coin()
    found = sample_masks(Cohort(x=images()), coin, 6)
    assert (coin.encoded, coin.drawn) == (5, 30)
    assert found.nfe_encoder.tolist() == [1] * 5
    assert found.nfe_unet_forward.tolist() == [18] * 5
    assert found.labels == ["background", "region"]
    assert (found.samples, found.segmenter) == (6, "Coin")
    frequency = sample_masks(images(1), Coin(), 4000).masks[0].double().mean(0)
    torch.testing.assert_close(frequency, (images(1)[0, 0].double() + 1) / 2, atol=0.04, rtol=0)


def test_verdicts_say_what_became_of_an_image():
    x = images(3)
    x[1] = 1.0

    class Odd(Coin):
        def encode(self, x):
            p, total = super().encode(x)
            return (p, torch.where(x[:, 0, 0, 0] == images(3)[2, 0, 0, 0], torch.nan, total))

    found = sample_masks(x, Odd(), 4)
    assert found.verdict.tolist() == [Drawn.SAMPLED, Drawn.COLLAPSED, Drawn.REFUSED]
    assert found.diversity[1] == 0
    assert found.diversity[2].isnan()
    assert not found.masks[2].any()


def test_no_image_is_no_row():
    found = sample_masks(images(0), Coin(), 4)
    assert len(found) == 0
    assert found.masks.shape == (0, 4, 8, 8)


@pytest.mark.parametrize(
    ("x", "segmenter", "n", "message"),
    [
        (images(), torch.nn.Conv2d(1, 1, 1), 4, "segmenter: expected a network that draws masks .* got Conv2d"),
        (images(), Coin(), 1, "n: expected 2 masks an image or more"),
        (images(2, (8, 6)), Coin(), 4, "x: expected spatial sizes divisible by 4"),
        (2 * images() + 3, Coin(), 4, r"x: expected values in \[-1, 1\]"),
        (images() * torch.nan, Coin(), 4, "NaN or infinite"),
    ],
)
def test_what_cannot_be_asked_is_refused(x, segmenter, n, message):
    with pytest.raises(InputError, match=message):
        sample_masks(x, segmenter, n)
