"""Who the subjects are: factors with the shares and moves of their configuration, all else left as it was."""

from dataclasses import fields, replace

import pytest
import torch
from pydantic import ValidationError

from cfx.data.subjects import SHAPE_MODES, SIGNED, BrainConfig, Confounder, Readers, Subjects, _inside
from cfx.data.template import LEVELS

N = 10_000
INDEX = torch.arange(N)
KINDS = ("shape", "scanner", "tag", "implant", "ruler")


def subjects(**config):
    return Subjects(BrainConfig(seed=3, **config))


def differing(a, b):
    """Names of the factors in which the same subjects differ."""
    odd = {f.name for f in fields(a) if f.name != "planted" and not torch.equal(getattr(a, f.name), getattr(b, f.name))}
    return odd | {kind for kind in a.planted if not torch.equal(a.planted[kind], b.planted[kind])}


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_confounder_equals_the_class_as_often_as_asked(kind):
    people = subjects(confounders=(Confounder(kind=kind, strength=0.7, q=0.8, share=0.6),))
    y, amplitude = people.labels(INDEX), people.factors(INDEX).planted[kind]
    values = {0.0, 0.7, -0.7} if kind in SIGNED else {0.0, 0.7}
    assert set(amplitude.unique().tolist()) == {float(torch.tensor(v)) for v in values}
    error = 4 * 0.5 / (0.5 * N) ** 0.5  # four standard errors of a share of half the subjects
    for k, present in ((1, 0.8), (0, 0.2)):
        assert float((amplitude[y == k] > 0).double().mean()) == pytest.approx(0.6 * present, abs=error)
    if kind in SIGNED:
        assert float((amplitude == 0).double().mean()) == pytest.approx(0.4, abs=error)


def test_who_has_what_depends_on_nothing_else():
    people = subjects(confounders=(Confounder(kind="tag", q=0.8, share=0.6), Confounder(kind="ruler", q=0.8)))
    f, y = people.factors(INDEX), people.labels(INDEX)
    tag, ruler = (f.planted[kind] - f.planted[kind][y == 1].mean() for kind in ("tag", "ruler"))
    columns = torch.stack([tag, ruler, f.severity, f.level, *f.shape.T, *f.scanner.T])[:, y == 1]
    apart = torch.corrcoef(columns) - torch.eye(len(columns))
    apart[4:, 4:] = 0  # the shortened brains
    assert float(apart.abs().max()) < 4.5 / int((y == 1).sum()) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_differs_in_the_label_alone_and_its_twin_is_the_subject(kind):
    people = subjects(confounders=(Confounder(kind=kind, strength=0.7), Confounder(kind="tag"))[: 1 + (kind != "tag")],
                      label=kind)  # fmt: skip
    own = people.factors(INDEX)
    twin = people.twins(own)
    assert differing(own, twin) == {kind}
    assert ((own.planted[kind] > 0) ^ (twin.planted[kind] > 0)).all()
    torch.testing.assert_close(people.twins(twin).planted[kind], own.planted[kind])
    assert torch.equal(people.probability(INDEX), (own.planted[kind] > 0).float())


def test_the_twin_of_a_disease_has_the_severity_of_the_other_class():
    people = subjects(confounders=(Confounder(kind="tag"),))
    own = people.factors(INDEX)
    twin, y = people.twins(own), people.labels(INDEX)
    assert differing(own, twin) == {"severity"}
    assert torch.equal(twin.severity, people.severity(INDEX, 1 - y))
    assert ((twin.severity > own.severity) == (y == 0)).all()


@pytest.mark.parametrize(
    ("name", "field", "columns"),
    [
        ("size", "shape", [0]),
        ("ventricles", "shape", [len(SHAPE_MODES) - 1]),
        ("bias", "scanner", [0, 1, 2]),
        ("gamma", "scanner", [3]),
        ("noise", "scanner", [5]),
    ],
)
def test_a_moved_factor_moves_by_so_much_and_no_other_does(name, field, columns):
    people = subjects(moved={name: -0.75})
    before, after = people.drawn(INDEX), people.factors(INDEX)
    assert differing(before, after) == {field}
    step = getattr(after, field) - getattr(before, field)
    rest = [i for i in range(step.shape[1]) if i not in columns]
    torch.testing.assert_close(step[:, columns], torch.full((N, len(columns)), -0.75), atol=1e-6, rtol=0)
    assert not step[:, rest].any()


def test_moves_stop_at_the_ends_of_a_range():
    factors = subjects(moved={"severity": -0.5, "level": 1e3}).factors(INDEX)
    assert float(factors.severity.min()) == 0
    assert factors.level.unique().tolist() == [LEVELS[1]]


def test_a_move_leaves_who_is_ill_and_how_surely_as_it_was():
    plain, shifted = (subjects(overlap=0.5, moved=m) for m in ({}, {"severity": 0.3, "size": 1.0}))
    assert torch.equal(plain.labels(INDEX), shifted.labels(INDEX))
    assert torch.equal(plain.probability(INDEX), shifted.probability(INDEX))


def test_another_confounder_leaves_the_first_and_the_anatomy_alone():
    one = subjects(confounders=(Confounder(kind="tag", q=0.8),)).factors(INDEX)
    two = subjects(confounders=(Confounder(kind="tag", q=0.8), Confounder(kind="ruler"))).factors(INDEX)
    assert differing(one, replace(two, planted={"tag": two.planted["tag"]})) == set()


def test_rows_of_factors_are_those_of_the_subjects():
    people = subjects(confounders=(Confounder(kind="tag"),))
    assert differing(people.factors(INDEX)[5:9], people.factors(torch.arange(5, 9))) == set()


def test_brains_that_would_leave_the_field_of_view_are_shortened_to_its_edge():
    """Negative amplitudes of size and length make a brain larger; together they may come to -0.9."""
    shape = torch.zeros(3, len(SHAPE_MODES))
    shape[:, 0], shape[:, 1] = torch.tensor([-0.5, 0.3, 1.0]), torch.tensor([-0.5, -2.0, -1.0])
    expected = shape.clone()
    expected[:, 1] = torch.tensor([-0.4, -1.2, -1.0])
    torch.testing.assert_close(_inside(shape), expected)
    drawn = subjects().factors(INDEX).shape
    torch.testing.assert_close(_inside(drawn), drawn)


class TestReported:
    def test_a_certain_label_is_the_class_and_nothing_more_is_known(self):
        y = subjects().labels(INDEX)
        label, known = subjects().reported(INDEX, y)
        assert torch.equal(label, y)
        assert known == {}

    def test_labels_and_readers_err_as_often_as_asked_and_not_together(self):
        people = subjects(label_noise=0.2, readers=Readers(count=2, error=0.3))
        y = people.labels(INDEX)
        label, known = people.reported(INDEX, y)
        assert known.keys() == {"p_true", "y_true", "reader_0", "reader_1"}
        assert torch.equal(known["y_true"], y)
        wrong = torch.stack([v != y for v in (label, known["reader_0"], known["reader_1"])]).double()
        assert wrong.mean(1).tolist() == pytest.approx([0.2, 0.3, 0.3], abs=4 * 0.5 / N**0.5)
        assert float((torch.corrcoef(wrong) - torch.eye(3)).abs().max()) < 4.5 / N**0.5
        assert known["p_true"].unique().tolist() == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"confounders": [{"kind": "tag"}, {"kind": "tag"}]}, "expected each kind at most once"),
        ({"label": "tag"}, "label: expected disease or one of the confounders"),
        ({"label": "shape", "confounders": [{"kind": "shape", "share": 0.5}]}, "shape as the class expects its share"),
        ({"moved": {"hair": 1.0}}, "moved"),
    ],
)
def test_settings_that_mean_nothing_are_refused(config, message):
    with pytest.raises(ValidationError, match=message):
        BrainConfig(**config)
