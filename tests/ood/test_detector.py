"""The batch that a scorer is asked about counts every evaluation for its row."""

import torch

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
