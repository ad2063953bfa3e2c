"""A method of a comparison: its names, its settings, where it starts, and a generator without its labels."""

import json

import pytest
import torch

from cfx.commands.bench.contender import Candidate, Choices, Contender, start_sigma, unlabelled
from cfx.core.denoiser import Generative, Latent, Posterior
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.models.judge import Judge
from tests.counterfactual.toys import ClassGaussian, Linear, class_means

COSINE = Schedule.from_diffusers({"beta_schedule": "squaredcos_cap_v2"})


def choices(**more) -> Choices:
    chosen = {"dime": {"settings": {"scales": [1.0], "steps": 3}, "n": 4, "validity": 1.0}}
    return Choices(rule="the best", images=("a", "b"), chosen=chosen, tried={"dime": (chosen["dime"],)}, **more)


@pytest.mark.parametrize(("values", "key", "name"), [
    ({}, "minimal", "minimal"),
    ({"tuned": True}, "minimal", "minimal-tuned"),
    ({"labels": False}, "minimal-unlabelled", "minimal-unlabelled"),
    ({"labels": False, "tuned": True}, "minimal-unlabelled", "minimal-unlabelled-tuned"),
    ({"label": "ours", "tuned": True, "labels": False}, "ours", "ours-tuned"),
])  # fmt: skip
def test_rows_are_named_after_what_is_different(values, key, name):
    contender = Contender(method="minimal", **values)
    assert (contender.key, contender.name) == (key, name)


def test_what_is_tuned_takes_no_settings_of_its_own():
    with pytest.raises(ValueError, match="expected none beside `tuned`"):
        Contender(method="dime", tuned=True, settings={"steps": 3})
    assert Candidate(method="dime", settings={"steps": 3}).key == "dime"


@pytest.mark.parametrize(("method", "settings", "sigma"), [
    ("dime", {}, 0.774), ("ace", {}, 0.273), ("ddim-guidance", {}, 0.998), ("dvce", {}, 0.96), ("one-step", {}, 0.9),
    ("fastdime", {"start_sigma": 0.5}, 0.5), ("minimal", {"start": 0.95}, 0.997), ("morph", {}, 0.997),
    ("gradient-attack", {}, None), ("latent-shift", {}, None), ("additive-map", {}, None),
])  # fmt: skip
def test_every_method_says_where_it_starts(method, settings, sigma):
    generator = ClassGaussian(class_means((4, 4)), schedule=COSINE)
    assert start_sigma(Candidate(method=method, settings=settings).build(), generator) == pytest.approx(sigma, abs=1e-3)
    assert start_sigma(Candidate(method=method, settings=settings).build(), None) is None


def test_lists_become_the_tuples_that_methods_take():
    method = Candidate(method="dime", settings={"scales": [1.0, 2.0]})
    assert method.build().scales == (1.0, 2.0)
    assert method.build({"l1": 1.0}).scales == method.build({}).scales == (8.0, 10.0, 15.0)
    with pytest.raises(InputError, match="expected settings among"):
        method.build({"scale": 1.0})


def test_a_generator_without_labels_has_no_classes_and_one_answer():
    generator = ClassGaussian(class_means((4, 4)))
    bare, x = unlabelled(generator), torch.zeros(2, 1, 4, 4)
    assert isinstance(bare, Generative)
    assert not isinstance(bare, Latent)
    assert bare.classes is None
    assert bare.schedule is generator.schedule
    assert not Judge(Linear((4, 4))).speaks(bare, 2)
    assert Judge(Linear((4, 4))).speaks(generator, 2)
    label = torch.tensor([0, 1])
    assert torch.equal(bare(x, 300, label).mean, generator(x, 300).mean)
    assert not torch.equal(bare(x, 300, label).mean, generator(x, 300, label).mean)


def test_a_latent_generator_stays_one():
    class Codes(ClassGaussian):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return 0.5 * x

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            return 2 * z

    bare, x = unlabelled(Codes(class_means((4, 4)))), torch.ones(2, 1, 4, 4)
    assert isinstance(bare, Latent)
    assert torch.equal(bare.encode(x), 0.5 * x)
    assert torch.equal(bare.decode(x), 2 * x)
    assert isinstance(bare(x, 3), Posterior)


class TestChoices:
    def test_they_come_back_as_they_were_written(self, tmp_path):
        (tmp_path / "t.json").write_text(choices().frozen())
        found = Choices.read(tmp_path / "t.json")
        assert found.settings("dime") == {"scales": [1.0], "steps": 3}
        assert found.hash == choices().digest == found.digest
        assert len(found.hash) == 64

    @pytest.mark.parametrize("change", ["settings", "rule", "hash", "n"])
    def test_a_changed_file_is_refused(self, tmp_path, change):
        values = json.loads(choices().frozen())
        if change in ("rule", "hash"):
            values[change] = "another"
        elif change == "n":
            values["chosen"]["dime"]["n"] = 64
        else:
            values["chosen"]["dime"]["settings"]["steps"] = 4
        (tmp_path / "t.json").write_text(json.dumps(values))
        with pytest.raises(InputError, match="got a changed file"):
            Choices.read(tmp_path / "t.json")

    def test_a_file_of_another_kind_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="tuning: expected a file that `cfx bench tuning` wrote"):
            Choices.read(tmp_path / "none.json")
        (tmp_path / "t.json").write_text("[]")
        with pytest.raises(InputError, match="tuning: expected a file that `cfx bench tuning` wrote"):
            Choices.read(tmp_path / "t.json")

    def test_what_was_not_tuned_is_named(self):
        with pytest.raises(InputError, match=r"expected a tuned one, one of \['dime'\], got 'ace'"):
            choices().settings("ace")
