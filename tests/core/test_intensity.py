"""Matched intensities: invariant, in the norm's own distribution, and nothing moves in space."""

import torch

from cfx.core.intensity import Norm, otsu


def images(n=5, c=1, space=(12, 10), seed=0):
    """Air at -1, and tissue of all kinds above 0."""
    g = torch.Generator().manual_seed(seed)
    tissue = torch.rand(n, c, *space, generator=g) * 0.8
    return torch.where(torch.rand(n, c, *space, generator=g) < 0.4, -1.0, tissue)


def test_the_cut_is_otsus():
    v = torch.tensor([0.0, 0, 0, 1, 5, 6, 7]).view(1, 1, -1)
    best = max(range(1, 7), key=lambda k: k * (7 - k) * float(v[0, 0, k:].mean() - v[0, 0, :k].mean()) ** 2)
    assert otsu(v).item() == best == 4
    assert otsu(torch.tensor([[[0.0, 0, 1, 1]]])).item() == 2
    assert otsu(torch.ones(1, 1, 6)).item() == 6


def test_an_increasing_change_of_intensities_is_undone():
    for x in (images(), images(space=(6, 5, 4)), images(c=2)):
        norm = Norm.of(x)
        expected = norm.match(x)
        torch.testing.assert_close(norm.match(0.5 * x + 0.2), expected, atol=1e-6, rtol=0)
        gamma = torch.where(x > -1, 2 * ((x + 1) / 2) ** 1.3 - 1, x)
        torch.testing.assert_close(norm.match(gamma), expected, atol=1e-6, rtol=0)


def test_dark_tissue_that_contrast_takes_to_the_air_is_still_tissue():
    """Of air, dark and bright tissue: at gamma 2 dark tissue is nearer to the air."""
    g = torch.Generator().manual_seed(5)
    kind = torch.rand(3, 1, 12, 10, generator=g)
    noise = 0.02 * torch.rand(3, 1, 12, 10, generator=g)
    v = torch.where(kind < 0.4, 0.0, torch.where(kind < 0.6, 0.55, 0.9)) + noise
    norm = Norm.of(2 * v - 1)
    expected, found = norm.match(2 * v - 1), norm.match(2 * v**2 - 1)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_matched_images_have_the_norms_intensities():
    norm, other = Norm.of(images(seed=1)), images(seed=2)
    again = Norm.of(norm.match(0.5 * other))
    torch.testing.assert_close(again.bright, norm.bright, atol=0.04, rtol=0)
    torch.testing.assert_close(again.dark, norm.dark, atol=1e-6, rtol=0)


def test_order_and_ties_are_kept():
    x = images(1)
    found = Norm.of(images(seed=3)).match(x)
    assert found[x == -1].unique().tolist() == [-1]
    order = x.flatten().argsort(stable=True)
    assert bool((found.flatten()[order].diff() >= 0).all())


def test_a_lesion_stays_what_it_is():
    """A bright disc is none of contrast: it stays far above what surrounds it."""
    x = images(1)
    x[..., 4:7, 4:7] = 0.99
    x[..., 5, 5] = 0.01
    found = Norm.of(images(seed=4)).match(x)
    assert float(found[..., 4, 4] - found[..., 5, 5]) > 0.7


def test_a_constant_image_is_no_error():
    found = Norm.of(images()).match(torch.zeros(1, 1, 12, 10))
    assert found.isfinite().all()
    assert len(found.unique()) == 1
    assert Norm.of(torch.zeros(2, 1, 3, 3)).match(images(1)).isfinite().all()
