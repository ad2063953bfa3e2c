"""The batch that a scorer is asked about counts every evaluation for its row."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.models.judge import Judge
from cfx.ood.detector import Ask, Learn, Tools
from tests.ood.detectors import GaussianGenerator, cohort, images


def tools() -> Tools:
    judge = Judge(lambda x: torch.stack([x.flatten(1).mean(1), -x.flatten(1).mean(1)], 1))
    return Tools(generator=GaussianGenerator(), classifier=judge, ensemble=(judge, judge), features=lambda x: x.mean(1))


def test_evaluations_are_counted_for_their_rows():
    ask = Ask(images(3), tools())
    ask.posterior(ask.x, 5)
    ask.posterior(ask.x[[0, 0, 2]], 5, torch.tensor([0, 0, 2]))
    ask.logits(ask.x[:1], torch.tensor([0]))
    ask.slope(ask.x, lambda logits: logits[:, 0])
    ask.member(1, ask.x)
    assert ask.spent.unet_forward.tolist() == [3, 1, 2]
    assert ask.spent.classifier.tolist() == [3, 2, 2]
    assert ask.spent.classifier_backward.tolist() == [1, 1, 1]


def test_features_are_a_list_of_maps():
    ask = Ask(images(3), tools())
    (found,) = ask.features(ask.x)
    assert found.shape == (3, 8, 8)
    assert ask.spent.features.tolist() == [1, 1, 1]


def test_what_is_collected_is_of_every_image_in_order():
    learn = Learn(cohort(7), tools(), batch_size=3)
    assert torch.equal(learn.collect(lambda ask: ask.x[:, 0, 0, 0]), learn.cohort.x[:, 0, 0, 0])


class Autoencoder(nn.Module):
    """One that gives what it is told to."""

    def __init__(self, encode, decode=lambda z: z):
        super().__init__()
        self.encode, self.decode = encode, decode


def test_a_code_alone_is_a_mean_without_deviation_and_its_rows_are_not_taken_apart():
    ask = Ask(images(3), Tools(autoencoder=Autoencoder(lambda x: x.flatten(1))))
    mean, std = ask.encode(ask.x)
    assert torch.equal(mean, ask.x.flatten(1))
    assert torch.equal(std, torch.zeros_like(mean))


@pytest.mark.parametrize("given", [lambda x: (x[:1], x), lambda x: (x,), lambda x: "code", lambda x: 1 / 0])
def test_what_is_no_posterior_is_refused(given):
    ask = Ask(images(3), Tools(autoencoder=Autoencoder(given)))
    with pytest.raises(InputError, match="autoencoder"):
        ask.encode(ask.x)


def test_what_is_decoded_is_an_image_of_the_same_shape():
    wrapped = Ask(images(3), Tools(autoencoder=Autoencoder(lambda x: x, lambda z: (z, 0))))
    assert torch.equal(wrapped.decode(wrapped.x), wrapped.x)
    smaller = Ask(images(3), Tools(autoencoder=Autoencoder(lambda x: x, lambda z: z[..., :6])))
    with pytest.raises(InputError, match=r"decode to give images of shape \(1, 8, 8\), got \(1, 8, 6\)"):
        smaller.decode(smaller.x)
