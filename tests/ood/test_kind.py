"""The right kind of shift is named where it is known, none is where there is none, and what is not asked is said."""

import pytest
import torch
from torch import Tensor, nn

from cfx import ood
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.data.brain import BrainConfig, load_brain
from cfx.data.shifts import Shift, apply
from cfx.models import load
from cfx.ood.denoising import Denoising
from cfx.ood.kind import Kind, kind_of_shift
from tests.ood.detectors import MeanDetector


class Corner(nn.Module):
    """Reads the class off the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        logit = 8 * x[:, 0, 0, 0]
        return torch.stack([-logit, logit], 1) / 2


def people(n: int, seed: int, prior: float = 0.5) -> Cohort:
    """Air and tissue of random intensity; the class is how bright the first pixel is, with errors."""
    g = torch.Generator().manual_seed(seed)
    x = torch.where(torch.rand(n, 1, 8, 8, generator=g) < 0.4, -1.0, 0.8 * torch.rand(n, 1, 8, 8, generator=g))
    y = (torch.rand(n, generator=g) < prior).long()
    x[:, 0, 0, 0] = ((2 * y - 1) * 0.3 + 0.2 * torch.randn(n, generator=g)).clamp(-1, 1)
    return Cohort(x, y=y, ids=tuple(f"{seed}-{i}" for i in range(n)), classes=["well", "ill"])


@pytest.fixture(scope="module")
def fitted() -> ood.Fitted:
    return ood.fit(people(60, 0), MeanDetector())


def test_no_shift_is_called_one_as_often_as_the_level_says(fitted: ood.Fitted) -> None:
    n = 60
    called = [
        kind_of_shift(
            people(20, 100 + i), people(25, 900 + i), fitted, classifier=Corner(), level=0.1, permutations=99, seed=i
        ).kinds
        for i in range(n)
    ]
    share = sum(map(bool, called)) / n
    assert share <= 0.1 + 3 * (0.1 * 0.9 / n) ** 0.5
    assert share > 0  # a test that never rejects would say none of everything


def test_brightness_is_covariate_and_priors_are_told_from_the_matched_images(fitted: ood.Fitted) -> None:
    batch, known = people(60, 1, prior=0.9), people(80, 2)
    dim = kind_of_shift(batch.replace(x=0.6 * batch.x + 0.3), known, fitted, classifier=Corner())
    assert dim.kinds == (Kind.COVARIATE, Kind.LABEL)
    assert dim.treated["intensity"].auc == pytest.approx(0.5, abs=0.15)
    for name in ("black_box", "em"):
        assert dim.priors[name][1].low < 0.9 < dim.priors[name][1].high + 0.05
    plain = kind_of_shift(people(60, 1).replace(x=0.6 * people(60, 1).x + 0.3), known, fitted, classifier=Corner())
    assert plain.kinds == (Kind.COVARIATE,)


def test_class_priors_that_move_are_a_label_shift_and_no_concept(fitted: ood.Fitted) -> None:
    """The classifier errs; P(y | f) moves with the priors, P(f | y) does not."""
    found = kind_of_shift(people(120, 3, prior=0.9), people(200, 4), fitted, classifier=Corner())
    assert found.kinds == (Kind.LABEL,)
    assert found.reference_priors == pytest.approx((0.5, 0.5), abs=0.1)
    assert found.classes == ("well", "ill")
    assert found.priors["black_box"][1].low < 0.9 < found.priors["black_box"][1].high


def test_labels_that_do_not_follow_are_a_concept_shift(fitted: ood.Fitted) -> None:
    batch = people(60, 18)
    wrong = torch.where(torch.arange(60) % 3 == 0, 1 - batch.y, batch.y)
    found = kind_of_shift(batch.replace(y=wrong), people(80, 6), fitted, classifier=Corner())
    assert found.kinds == (Kind.CONCEPT,)
    assert found.accuracy < found.reference_accuracy - 0.2
    assert found.ece > found.reference_ece
    unlabelled = kind_of_shift(batch.replace(y=None), people(80, 6), fitted, classifier=Corner())
    assert unlabelled.kinds == ()
    assert "concept" not in unlabelled.p_values
    assert "no labels on both sides" in unlabelled.sentence
    assert unlabelled.accuracy is None


class Normed(nn.Module):
    """Features behind batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.norm.running_mean, self.norm.running_var = torch.tensor([-0.16]), torch.tensor([0.5])

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).flatten(1).mean(1, keepdim=True)


class FeatureMean:
    """The mean of normalised features."""

    name, needs = "feature-mean", ("features",)

    def fit(self, learn):
        return lambda ask: ood.Scored(ask.features(ask.x)[0][:, 0])


def test_batch_normalisation_adapts_where_a_network_has_any() -> None:
    features, batch, known = Normed(), people(40, 7), people(40, 8)
    state = {name: v.clone() for name, v in features.state_dict().items()}
    detector = ood.fit(people(60, 9), FeatureMean(), features=features)
    found = kind_of_shift(batch.replace(x=0.5 * batch.x + 0.4), known, detector)
    assert found.kind is Kind.COVARIATE
    assert found.treated["batch_norm"].auc == pytest.approx(0.5, abs=0.15)
    assert all(torch.equal(v, state[name]) for name, v in features.state_dict().items())
    assert set(kind_of_shift(batch, known, detector).treated) == set()


def test_batch_normalisation_that_cannot_be_adapted_is_said_and_no_error() -> None:
    class Twice(Normed):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.norm(x))

    detector = ood.fit(people(60, 9), FeatureMean(), features=Twice())
    found = kind_of_shift(people(40, 7).replace(x=0.5 * people(40, 7).x + 0.4), people(40, 8), detector)
    assert found.kind is Kind.COVARIATE
    assert set(found.treated) == {"intensity"}
    assert "Batch normalisation was not adapted: network: expected" in found.sentence


def test_what_cannot_be_asked_is_said(fitted: ood.Fitted) -> None:
    batch, known = people(40, 10, prior=0.95), people(60, 11)
    alone = kind_of_shift(batch, known, fitted)
    assert set(alone.p_values) == {"score"}
    assert "No classifier was given" in alone.sentence
    guessing = kind_of_shift(batch, known, fitted, classifier=lambda x: torch.zeros(len(x), 2) + x[:, 0, 3, 3:5])
    assert "not shown to know its classes" in guessing.sentence
    assert guessing.priors == {}
    trusted = kind_of_shift(batch, known.replace(y=None), fitted, classifier=Corner())
    assert trusted.kinds == (Kind.LABEL,)
    assert "taken on trust" in trusted.sentence
    assert set(trusted.priors) == {"em"}


def test_rows_of_one_subject_count_once(fitted: ood.Fitted) -> None:
    batch, known = people(8, 12), people(40, 13)
    many = Cohort.cat([batch] * 5)
    once, often = (kind_of_shift(b, known, fitted, classifier=Corner(), permutations=199) for b in (batch, many))
    assert once.p_values == often.p_values
    assert once.auc == pytest.approx(often.auc)


def test_too_few_rows_and_odd_arguments_are_named(fitted: ood.Fitted) -> None:
    batch, known = people(8, 14), people(40, 15)
    with pytest.raises(InputError, match=r"x: expected at least 8 subjects .* got 7"):
        kind_of_shift(batch[:7], known, fitted)
    with pytest.raises(InputError, match=r"reference: expected at least 8 subjects .* got 1"):
        kind_of_shift(batch, known[:1], fitted)
    with pytest.raises(InputError, match=r"at least 20 permutations, got 0\.05 and 9"):
        kind_of_shift(batch, known, fitted, permutations=9)
    with pytest.raises(InputError, match=r"x.y: expected classes 0 .. 1 of the classifier, got \[6\]"):
        kind_of_shift(Cohort(batch.x, y=batch.y + 5 * (batch.y == 1)), known, fitted, classifier=Corner())


def test_each_kind_on_simulated_brains_with_the_shipped_checkpoints(root) -> None:
    """Images, generator and classifier as they are shipped; subjects that no network has seen."""
    brains = load_brain(BrainConfig(n=320, seed=7))
    classifier = load(root / "checkpoints/brain64-classifier")
    detector = ood.fit(brains[:96], Denoising(levels=(0.3,)), generator=load(root / "checkpoints/brain64-diffusion"))
    known, rest, batch = brains[96:160], brains[160:], brains[160:192]
    ill = rest.y == 1
    wrong = torch.where(torch.arange(32) % 3 == 0, 1 - batch.y, batch.y)
    cases = {
        Kind.NONE: batch,
        Kind.COVARIATE: batch.replace(x=0.6 * batch.x + 0.1),
        Kind.LABEL: Cohort.cat([rest[ill][:28], rest[~ill][:4]]),
        Kind.SEMANTIC: apply(Shift("lesion", 2.0), batch),
        Kind.CONCEPT: batch.replace(y=wrong),
    }
    found = {kind: kind_of_shift(x, known, detector, classifier=classifier) for kind, x in cases.items()}
    assert {kind: f.kind for kind, f in found.items()} == {kind: kind for kind in cases}
    assert found[Kind.LABEL].priors["black_box"][1].low < 28 / 32 < found[Kind.LABEL].priors["black_box"][1].high
    assert found[Kind.LABEL].priors["em"][1].value == pytest.approx(28 / 32, abs=0.1)
