"""A step towards confidence, and how far it goes."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.models.judge import Judge
from cfx.ood.confidence.perturbation import STEPS, check_step, choose, stepped
from cfx.ood.detector import Ask, Learn, Tools
from tests.ood.detectors import cohort, images

TOOLS = Tools(classifier=Judge(lambda x: x.flatten(1)[:, :2]))


def test_it_goes_along_the_sign_of_the_slope():
    ask = Ask(images(3), TOOLS)
    assert torch.equal(stepped(ask, lambda a: -3 * torch.ones_like(a.x), 0.02), ask.x - 0.02)
    assert stepped(ask, lambda a: pytest.fail("no step needs no slope"), 0.0) is ask.x


@pytest.mark.parametrize("best", STEPS)
def test_the_step_of_most_confidence_is_chosen_on_the_images_it_is_fitted_to(best):
    """Confidence that is highest at a known distance from where the images are."""
    learn = Learn(cohort(30), TOOLS, batch_size=7)

    def confidence(ask, x):
        return -((x - ask.x).flatten(1).mean(1) - best).abs()

    assert choose(learn, lambda a: torch.ones_like(a.x), confidence) == best


def test_a_step_is_not_negative():
    check_step(None)
    check_step(0.0)
    with pytest.raises(InputError, match=r"eps: expected a step of at least 0, or None to choose one, got -0\.1"):
        check_step(-0.1)
