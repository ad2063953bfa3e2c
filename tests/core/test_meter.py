"""Evaluations are counted for the row they were made for."""

import torch

from cfx.core.meter import Meter


def test_a_row_that_occurs_several_times_is_counted_as_often():
    meter = Meter(3)
    meter.count("unet_forward", torch.tensor([0, 2, 2]))
    meter.count("classifier", torch.tensor([1]))
    assert meter.unet_forward.tolist() == [1, 0, 2]
    assert meter.classifier.tolist() == [0, 1, 0]
    assert meter.unet_backward.tolist() == meter.classifier_backward.tolist() == [0, 0, 0]
