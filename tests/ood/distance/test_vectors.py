"""Features of any shape as one vector an image and layer."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn, Tools
from cfx.ood.distance.vectors import collected, vectors
from tests.ood.detectors import cohort, images


def ask(features, n=4):
    return Ask(images(n), Tools(features=features))


def test_maps_are_averaged_over_space_and_vectors_are_as_they_are():
    found = vectors(ask(lambda x: [x, x.flatten(1)]))
    torch.testing.assert_close(found[0], images(4).double().mean((2, 3)), atol=1e-7, rtol=1e-6)
    assert torch.equal(found[1], images(4).flatten(1).double())


def test_all_images_layer_by_layer():
    learn = Learn(cohort(7), Tools(features=lambda x: [x, x.flatten(1)]), batch_size=3)
    assert [tuple(v.shape) for v in collected(learn)] == [(7, 1), (7, 64)]
    assert torch.equal(collected(learn)[1], learn.cohort.x.flatten(1).double())


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (lambda x: x.flatten(), r"expected vectors \(4, d\) or maps \(4, d, \*space\) of layer 0, got \(256,\)"),
        (lambda x: [x, x[:2]], r"of layer 1, got \(2, 1, 8, 8\)"),
        (lambda x: ["a"], "features: expected a tensor, or one under .*, got str"),
        (lambda x: [], "features: expected a vector or a map an image, got an empty list"),
        (lambda x: x / 0, "expected finite features, got NaN or infinity in layer 0"),
        (lambda x: x.conv(), r"features: failed on images of shape \(4, 1, 8, 8\)"),
    ],
)
def test_what_is_no_vector_is_refused(features, said):
    with pytest.raises(InputError, match=said):
        vectors(ask(features))
