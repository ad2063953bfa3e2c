"""A run that cannot be read as an explanation says so, and why: in slices and in volumes."""

import json

import pytest
import torch
from torch import nn

from cfx.atlas import Atlas
from cfx.core.cohort import Cohort
from cfx.core.errors import CfxWarning, InputError
from cfx.counterfactual import Minimal, explain, explain_batches
from cfx.counterfactual.result import Counterfactuals
from cfx.counterfactual.standing import Standing, completed, look
from cfx.data import BrainConfig, load_cohort
from cfx.models import load
from cfx.models.goal import recognised
from cfx.models.judge import Judge
from cfx.runtime.config import check
from cfx.training.config import TrainConfig
from cfx.training.loop import train
from tests.counterfactual.toys import ClassGaussian, Linear, Quadratic, class_means, cohort
from tests.models.test_denoising import STRANGERS

SPACES = [(8, 8), (32, 32, 32)]


def run(space, classifier=None, generator=None, n=4, **more):
    means = class_means(space)
    given = {"reference": cohort(means, 48), "method": Minimal(trials=1)} | more
    return explain(cohort(means, n, 1).x, classifier or Linear(space), generator or ClassGaussian(means), **given)


class Guess(nn.Module):
    """Right by chance only: it looks at a corner, where no class differs."""

    def forward(self, x):
        return 30 * x.flatten(1)[:, 2]


class Swapped(ClassGaussian):
    """Labels that mean the other class."""

    def __call__(self, x_t, t, label=None):
        return super().__call__(x_t, t, label if label is None else torch.where(label < 2, 1 - label, label))


@pytest.mark.parametrize("space", SPACES)
class TestVerdictsOfARun:
    def test_networks_that_know_are_judged_in_silence(self, space):
        found = run(space)
        assert (found.judged, found.why, found.remarks) == (True, "", ())
        assert found.standing["figures"]["competence"] > 0.9
        assert found.standing["figures"]["denoising_ratio"] < 1.2
        assert "judged" not in repr(found)

    def test_a_classifier_near_chance_is_not_judged(self, space):
        with pytest.warns(CfxWarning, match="of reference, got balanced accuracy"):
            found = run(space, Guess(), depth="boundary")
        assert not found.judged
        assert found.why.startswith(
            "competence: the classifier is not shown to know the classes of reference: balanced"
        )
        assert f"not judged ({found.why})" in repr(found)
        with pytest.warns(CfxWarning):
            told = run(space, Guess(), depth="boundary", judge_anyway=True)
        assert told.judged
        assert told.why == ""
        assert "not judged" not in repr(told)

    @pytest.mark.parametrize("stranger", STRANGERS)
    def test_a_generator_that_does_not_know_the_images_is_not_judged(self, space, stranger):
        if "numbers" in stranger:
            return
        found = run(space, generator=STRANGERS[stranger](ClassGaussian(class_means(space))))
        assert not found.judged
        assert found.why.startswith("generator: does not know these images: at noise level ")

    def test_exchanged_columns_are_refused(self, space):
        with pytest.raises(InputError, match=r"^classifier: expected columns in the order of the labels"):
            run(space, lambda x: -Linear(space)(x))

    def test_a_generator_of_exchanged_classes_is_not_judged(self, space):
        found = run(space, generator=Swapped(class_means(space)))
        assert not found.judged
        assert "classes: the generator knows them in another order: the labels count class 0, class 1" in found.why


def brains(dims, n, **more):
    return {"kind": "brain", "n": n, "size": 32, "dims": dims, **more}


@pytest.mark.parametrize("dims", [2, 3])
def test_a_generator_of_150_steps_is_not_judged(dims, tmp_path):
    config = {
        "name": "g", "out": str(tmp_path), "data": brains(dims, 12, seed=1),
        "network": {"name": "patch-unet", "patch": 4, "channels": [8, 8], "attention": [False, False], "features": 4},
        "objective": {"kind": "diffusion", "classes": 2}, "batch_size": 2, "steps": 150, "ema": 0.999,
    }  # fmt: skip
    trained = train(check(TrainConfig, config, "config"))
    generator, x = load(trained.checkpoint), load_cohort(check(BrainConfig, brains(dims, 24, seed=5), "data"))
    found = look(Judge(lambda v: v.flatten(1)[:, 0]), generator, x)
    assert not found.judged
    assert "generator: does not know these images" in found.why


SHIFTS = ["tag", "implant", "ruler", "scanner", "shape"]


@pytest.mark.parametrize("shift", [None, *SHIFTS])
def test_the_shipped_networks_know_cohorts_of_other_seeds(shift):
    more = {} if shift is None else {"confounders": [{"kind": shift, "q": 0.9}]}
    judge, generator = Judge(load("brain64-classifier")), load("brain64-diffusion")
    for seed in (11, 12):
        x = load_cohort(BrainConfig(kind="brain", n=40, size=64, seed=seed, **more))
        for reference in (None, load_cohort(BrainConfig(kind="brain", n=48, size=64, seed=seed + 20))):
            found = look(judge, generator, x, reference, recognised(judge, reference))
            assert found.reasons == found.remarks == {}
            assert found.figures["denoising_ratio"] < 0.7


class TestRows:
    def test_labels_of_the_images_speak_where_there_is_no_reference(self):
        probs, y = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).repeat(20, 1), torch.arange(40) % 2
        found = completed(Standing(), probs, None, y)
        assert found.judged
        assert found.figures["data_competence"] == found.figures["data_auc"] == 1
        assert found.figures["data_ece"] == pytest.approx(0.15)
        wrong = completed(Standing(), probs, None, y.roll(1))
        assert wrong.why.startswith("competence: the classifier does not know the classes of x")
        beside = completed(Standing({"competence": 0.9}), probs, None, y.roll(1))
        assert beside.judged  # these rows may have been chosen for being wrong
        assert completed(Standing(), probs[:6], None, y.roll(1)[:6]).judged  # few
        assert completed(Standing(), probs, None, y + 3) == Standing()  # labels of something else

    @pytest.mark.parametrize(("clear", "judged"), [(True, True), (None, True), (False, False)])
    def test_who_hardly_knows_its_classes_has_to_follow_those_of_the_generator(self, clear, judged):
        probs = torch.full((4, 2), 0.5)
        some, none = torch.tensor([0.9, 0.4, torch.nan, 0.9]), torch.tensor([0.3, 0.2, torch.nan, 0.5])
        assert completed(Standing(clear=clear), probs, some).remarks == {}
        assert completed(Standing(clear=clear), probs, some).judged
        found = completed(Standing(clear=clear), probs, none)
        assert found.judged is judged
        assert "does not follow the generator's classes (0.33 of 1)" in "".join([*found.remarks.values(), found.why])
        apart = completed(Standing(clear=clear), probs, none, reading=("carried", "", "whole", "carried"))
        assert apart.judged  # a weak classifier of one place
        assert apart.remarks
        all_over = completed(Standing(clear=clear), probs, none, reading=("carried", "", "whole", "whole"))
        assert all_over.judged is judged
        far = completed(Standing(clear=clear), probs, some, strayed=torch.tensor([0.9, 1.8, 2.0, 2.2]))
        assert "edits: they are 1.8 times as far from the images of reference" in far.why
        assert completed(Standing(clear=clear), probs, some, strayed=torch.tensor([0.9, 1.1, 2.0, 1.0])).judged
        asked = completed(Standing(clear=clear), probs, torch.full((4,), torch.nan))
        assert asked.judged
        assert "consent" not in asked.figures


def test_parts_of_one_run_keep_what_is_known():
    means = class_means((8, 8))
    toys, given = cohort(means, 4), (Quadratic(means), STRANGERS["mirrors"](ClassGaussian(means)))
    parts = [*explain_batches(toys, *given, batches=[[0, 1]]), *explain_batches(toys, *given, batches=[[2, 3]])]
    whole = Counterfactuals.cat(parts)
    assert not whole.judged
    assert not whole[:1].judged
    assert not whole.put([0], whole[[1]].replace(standing={})).judged
    known = Counterfactuals.cat([parts[0].replace(standing={}), parts[1].replace(standing={})])
    assert known.judged  # as far as is known


def test_what_is_known_travels_with_an_atlas(tmp_path):
    found = run((8, 8), generator=STRANGERS["mirrors"](ClassGaussian(class_means((8, 8)))))
    found.save(tmp_path / "a.zarr")
    again = Atlas(tmp_path / "a.zarr", Counterfactuals).read()
    assert (again.judged, again.why) == (False, found.why)
    assert Standing.of(json.loads(json.dumps(found.standing))) == Standing.of(found.standing)


def test_images_that_show_nothing_say_nothing():
    means = class_means((8, 8))
    blank = Cohort(torch.zeros(4, 1, 8, 8))
    assert look(Judge(Linear((8, 8))), ClassGaussian(means), blank) == Standing()
    assert look(Judge(Linear((8, 8))), None, cohort(means, 4)) == Standing()


def test_a_summary_is_flat():
    found = Standing({"competence": 0.5}, {"competence": "bad"}, {"classes": "other"})
    assert found.summary() == {"competence": 0.5, "judged": False, "why": "bad", "remarks": "other"}
    told = Standing({}, {"competence": "bad"}, anyway=True).summary()
    assert told == {"judged": True, "remarks": "bad"}
