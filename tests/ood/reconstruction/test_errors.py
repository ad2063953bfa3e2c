"""Distances of two images: closed forms, scikit-image's SSIM, the feature distance of `cfx.models.perceptual`."""

import pytest
import torch
from skimage.metrics import structural_similarity

from cfx.core.errors import InputError
from cfx.models import build
from cfx.models.features import FeatureMaps
from cfx.models.perceptual import FeatureDistance
from cfx.ood.reconstruction.errors import check_kind, error_map, feature_error, on_grid, per_image, ssim_error


def pair(*space, channels=1):
    """Two images, the second a noisy copy."""
    g = torch.Generator().manual_seed(5)
    a = torch.rand(2, channels, *space, generator=g) * 2 - 1
    return a, (a + 0.3 * torch.randn(a.shape, generator=g)).clamp(-1, 1)


@pytest.mark.parametrize("space", [(20, 23), (14, 13, 15)])
def test_ssim_is_that_of_scikit_image_but_for_the_border(space):
    a, b = pair(*space)
    found, inside = 1 - ssim_error(a, b)[1, 0], tuple(slice(5, -5) for _ in space)
    _, theirs = structural_similarity(
        a[1, 0].numpy(), b[1, 0].numpy(), data_range=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        full=True,
    )  # fmt: skip
    torch.testing.assert_close(found[inside], torch.from_numpy(theirs).float()[inside], rtol=1e-4, atol=1e-4)


def test_ssim_sees_lost_contrast_where_means_agree():
    a = torch.ones(1, 1, 16, 16)
    a[..., ::2, 1::2] = a[..., 1::2, ::2] = -1
    assert float(ssim_error(a, torch.zeros_like(a)).min()) > 0.9
    assert float(ssim_error(a, a).abs().max()) < 1e-5


def test_maps_average_channels_and_images_their_maps():
    a, b = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    b[0, 1, 2, 3] = 0.5
    assert float(per_image(error_map("l1", a, b))) == pytest.approx(0.25 / 16)
    assert float(error_map("l2", a, b)[0, 0, 2, 3]) == pytest.approx(0.125)
    assert error_map("ssim", a, b).shape == (1, 1, 4, 4)


def test_a_feature_error_is_the_feature_distance_and_says_where():
    torch.manual_seed(0)
    network = build("cnn", spatial_dims=2, in_channels=1, out_channels=2).eval()
    a, b = pair(16, 16)
    b[1] = a[1]
    b[0, :, :, 8:] = a[0, :, :, 8:]
    with torch.no_grad():
        maps = FeatureMaps(network)
        total, where = feature_error(maps(a), maps(b), (16, 16))
        torch.testing.assert_close(total, FeatureDistance(network)(a, b))
    assert where.shape == (2, 1, 16, 16)
    assert float(total[1]) == 0
    assert float(where[0, 0, :, 0].mean()) > float(where[0, 0, :, -1].mean())


def test_vectors_have_a_distance_but_no_place():
    u = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    v = torch.tensor([[6.0, 8.0], [0.0, 2.0]])
    total, where = feature_error([u], [v], (8, 8))
    torch.testing.assert_close(total, torch.tensor([0.0, 2.0]))
    assert where is None


def test_a_coarse_map_is_repeated():
    coarse = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert on_grid(coarse, (4, 4))[0, 0, 3].tolist() == [3, 3, 4, 4]
    assert on_grid(coarse, (2, 2)) is coarse


def test_an_unknown_distance_is_refused():
    with pytest.raises(InputError, match=r"error: expected one of \['l1', 'l2', 'ssim', 'perceptual'\], got 'lpips'"):
        check_kind("lpips")
