"""Controls know nothing of the classifier."""

import torch

from cfx.attribution import attribute
from tests.attribution.networks import Linear, images


def test_edges_are_where_the_image_changes():
    x = torch.zeros(1, 2, 6, 6)
    x[:, 1, :, 3:] = 0.5
    found = attribute(lambda v: v.flatten(1)[:, :2], x, 0, method="edges").map[0, 0]
    assert (found > 0).any(0).tolist() == [False, False, True, True, False, False]


def test_the_centre_is_largest_in_the_middle_of_each_axis():
    found = attribute(Linear((5, 5, 5)), images(1, (5, 5, 5)), 0, method="centre").map[0, 0]
    assert int(found.argmax()) == 62
    torch.testing.assert_close(found, found.flip(0, 1, 2))


def test_chance_is_the_same_for_every_classifier():
    x = images(2)
    maps = [attribute(f, x, 0, method="random").map for f in (Linear(), lambda v: v.flatten(1)[:, :3])]
    assert torch.equal(*maps)
    assert 0.3 < float(maps[0].mean()) < 0.7
