"""One reader a row, drawn evenly and by key; labels that bytes can number."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.models.registry import BUILDERS, build
from cfx.models.samplers import Draw, MaskSampler, one_reader
from tests.models.networks import small

SAMPLERS = sorted(name for name, (kind, _) in BUILDERS.items() if kind == "mask-sampler")


def test_every_reader_is_drawn_as_often_and_by_the_rows_own_key():
    readings = torch.arange(4, dtype=torch.uint8).view(1, 4, 1, 1).expand(8000, 4, 2, 2)
    slot = torch.arange(8000)
    drawn = one_reader(readings, Draw(3, slot))
    assert drawn.shape == (8000, 2, 2)
    counts = drawn[:, 0, 0].long().bincount()
    assert ((counts - 2000).abs() < 4 * (8000 * 3 / 16) ** 0.5).all()
    assert torch.equal(one_reader(readings[:5], Draw(3, slot[100:105])), drawn[100:105])
    assert not torch.equal(one_reader(readings, Draw(4, slot)), drawn)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("dims", "classes"), [(2, 2), (3, 3)])
def test_a_draw_depends_on_image_seed_and_counter_alone(name, dims, classes):
    sampler = small(name, dims, classes=classes).eval()
    assert isinstance(sampler, MaskSampler)
    space = [2 * sampler.multiple] * dims
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((3, 1, *space), generator=generator) * 2 - 1
    row = torch.tensor([5, 9, 1 << 40])
    with torch.no_grad():
        whole = sampler.draw(sampler.encode(x), seed=1, row=row)
        alone = torch.cat([sampler.draw(sampler.encode(x[i : i + 1]), seed=1, row=row[i : i + 1]) for i in range(3)])
    assert whole.shape == (3, *space)
    assert whole.dtype == torch.uint8
    assert int(whole.max()) < classes
    assert float((whole == alone).float().mean()) > 0.999  # but for rounding


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("dims", "classes"), [(2, 2), (3, 3)])
def test_the_loss_of_a_row_depends_on_its_image_readers_and_slot_alone(name, dims, classes):
    sampler = small(name, dims, classes=classes)
    space = [2 * sampler.multiple] * dims
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((3, 1, *space), generator=generator) * 2 - 1
    readings = torch.randint(0, classes, (3, 4, *space), generator=generator, dtype=torch.uint8)
    slot = torch.tensor([7, 3, 100])
    whole, scores = sampler(x, readings, Draw(2, slot))
    assert whole.shape == (3,)
    assert not any(value.requires_grad for value in scores.values())
    alone, _ = sampler(x[1:2], readings[1:2], Draw(2, slot[1:2]))
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-4, atol=1e-4)
    whole.mean().backward()
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in sampler.parameters())


@pytest.mark.parametrize("classes", [1, 257])
def test_labels_that_bytes_cannot_number_are_refused(classes):
    with pytest.raises(InputError, match="classes: expected 2 to 256"):
        build("mask-energy", spatial_dims=2, in_channels=1, classes=classes)
