"""The search finds the least strength, row by row, whatever else is in the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfx.counterfactual.search import Bracket, Found, least_strength

PLENTY = 60


class Curves:
    """One margin curve a row, as a trial; the image tried is the strength itself. Counts the trials of every row."""

    def __init__(self, *curves):
        self.curves = curves
        self.calls = torch.zeros(len(curves), dtype=torch.long)
        self.tried = [[] for _ in curves]

    def __call__(self, rows, strength):
        assert len(rows) == len(set(rows.tolist())) > 0
        self.calls[rows] += 1
        for r, s in zip(rows.tolist(), strength.tolist(), strict=True):
            self.tried[r].append(s)
        excess = [self.curves[r](s) for r, s in zip(rows.tolist(), strength.tolist(), strict=True)]
        return strength.view(-1, 1, 1, 1), torch.tensor(excess)

    def search(self, trials=PLENTY, tolerance=0.3, **options):
        excess = torch.tensor([float(curve(0.0)) for curve in self.curves])
        x = torch.zeros(len(excess), 1, 1, 1)
        return least_strength(self, x, excess, trials=trials, tolerance=tolerance, **options)

    def judge(self, rows, images):
        """Of the images alone; as an image is its strength, the line through one is the curve itself."""
        return torch.tensor([self.curves[r](s) for r, s in zip(rows.tolist(), images.flatten().tolist(), strict=True)])


def power(root, p, slope):
    """Crosses zero at `root`."""
    return lambda s: slope * ((s / root) ** p - 1)


def root_by_brute_force(curve, low=0.0, high=1e4):
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if curve(middle) >= 0 else (middle, high)
    return high


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 30), st.floats(0.4, 3), st.floats(0.5, 20), st.floats(0.01, 1))
def test_monotone_curves_are_solved_to_the_tolerance(root, p, slope, tolerance):
    curve = power(root, p, slope)
    found = Curves(curve).search(tolerance=tolerance)
    least = root_by_brute_force(curve)
    assert found.finite.all()
    assert float(found.excess) >= 0
    assert float(found.excess) == pytest.approx(curve(float(found.strength)), abs=1e-4)
    near = float(found.excess) <= tolerance + 1e-5
    assert least * (1 - 1e-5) <= float(found.strength)
    assert near or float(found.strength) <= least / 0.98 * (1 + 1e-5)


def test_a_smooth_curve_takes_few_trials():
    roots = torch.linspace(0.3, 3.9, 40).tolist()
    curves = Curves(*[power(r, p, 6) for r in roots for p in (0.7, 1, 1.5)])
    found = curves.search(trials=8)
    assert (found.excess >= 0).all()
    assert (found.excess <= 0.3 + 1e-5).double().mean() > 0.95
    assert found.trials.double().mean() < 5


@settings(max_examples=40, deadline=None)
@given(st.floats(0.02, 50))
def test_a_step_is_found_to_two_percent(edge):
    found = Curves(lambda s: 1.0 if s >= edge else -1.0).search()
    assert edge * (1 - 1e-6) <= float(found.strength) <= edge / 0.98 * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.2, 8), st.floats(0, 6.3), st.floats(0.5, 3))
def test_curves_that_turn_back_end_in_a_success_that_was_the_least_tried(rate, phase, height):
    def curve(s):
        return height * float(torch.sin(torch.tensor(rate * s + phase))) - 0.3 if s > 0 else -2.0

    curves = Curves(curve)
    found = curves.search(trials=20, tolerance=0.05)
    tried = curves.tried[0]
    good = [s for s in tried if curve(s) >= 0]
    if good:
        assert float(found.strength) == pytest.approx(min(good))
        assert float(found.excess) >= 0
    else:
        assert float(found.excess) == pytest.approx(max([-2.0, *[curve(s) for s in tried]]), abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 8), st.floats(0.4, 3), st.floats(0.5, 20), st.floats(0.02, 0.3))
def test_a_judge_of_images_finds_the_root_to_the_resolution_in_few_trials(root, p, slope, resolution):
    curves = Curves(power(root, p, slope))
    found = curves.search(tolerance=0.0, resolution=resolution, judge=curves.judge)
    least = root_by_brute_force(curves.curves[0])
    assert float(found.excess) >= 0
    assert least * (1 - 1e-5) <= float(found.strength) <= least * (1 + resolution) * (1 + 1 / 32) * (1 + 1e-5)
    plain = Curves(power(root, p, slope))
    plain.search(tolerance=0.0, resolution=resolution)
    assert int(curves.calls) <= int(plain.calls) + 2  # straight lines, which false position solves at once
    assert int(curves.calls) <= 7


def test_a_judge_saves_trials_where_margins_saturate():
    roots = torch.linspace(0.2, 0.9, 40).tolist()
    saturated = [lambda s, r=r: 4 * float(torch.tanh(torch.tensor(12 * (s - r)))) for r in roots]
    with_, without = Curves(*saturated), Curves(*saturated)
    found = with_.search(resolution=0.1, judge=with_.judge)
    without.search(resolution=0.1)
    assert (found.excess >= 0).all()
    assert with_.calls.double().mean() < 0.8 * without.calls.double().mean()


@pytest.mark.parametrize("first", [0.5, 1.0])
def test_lines_that_fall_short_do_not_use_up_the_trials(first):
    # the edit grows with the square root of the strength, so its line always crosses too early
    roots = first * torch.linspace(0.5, 5.0, 40)
    x, reached = torch.zeros(40, 1, 1, 1), roots.sqrt()

    def judge(rows, images):
        return images.flatten() - reached[rows]

    def trial(rows, strength):
        images = strength.sqrt().view(-1, 1, 1, 1)
        return images, judge(rows, images)

    found = least_strength(trial, x, -reached, trials=4, tolerance=0.0, resolution=0.1, first=first, judge=judge)
    assert (found.excess >= 0).all()
    assert (found.strength <= 1.6 * roots).all()


@pytest.mark.parametrize("word", [1.0, -1.0])
def test_a_judge_that_is_wrong_costs_trials_but_not_the_result(word):
    curves = Curves(power(0.7, 1.0, 4), power(3.1, 2.0, 4))
    found = curves.search(resolution=0.1, judge=lambda rows, _: torch.full((len(rows),), word))
    assert (found.excess >= 0).all()
    assert torch.equal(
        found.excess, torch.tensor([c(float(s)) for c, s in zip(curves.curves, found.strength, strict=True)])
    )


def test_only_rows_that_go_on_are_judged():
    asked = []

    def judge(rows, images):
        asked.extend(rows.tolist())
        return curves.judge(rows, images)

    curves = Curves(power(0.99, 1.0, 4), power(2.0, 1.0, 4))
    curves.search(judge=judge)
    assert set(asked) == {1}
    asked.clear()
    curves.search(trials=1, judge=judge)
    assert asked == []


CURVES = {
    "easy": power(0.8, 1.0, 4),
    "late": power(7.0, 2.0, 2),
    "never": lambda s: -1 - 1 / (1 + s),
    "worse": lambda s: -1 - s,
    "hump": lambda s: -1 + 0.9 * s * (4 - s) / 4,
    "breaks": lambda s: float("nan") if s > 1.5 else -1.0,
    "explodes": lambda s: float("inf") if s > 3 else -1.0,
    "step": lambda s: 1.0 if s >= 2.3 else -1.0,
}


@pytest.mark.parametrize("judged", [False, True])
def test_a_row_does_not_depend_on_its_batch_or_place(judged):
    def search(*curves):
        c = Curves(*curves)
        return c.search(trials=9, judge=c.judge if judged else None)

    together, backwards = search(*CURVES.values()), search(*reversed(CURVES.values()))
    for i, curve in enumerate(CURVES.values()):
        alone = search(curve)
        for field in ("image", "strength", "excess", "trials", "finite"):
            assert torch.equal(getattr(together, field)[i], getattr(alone, field)[0])
            assert torch.equal(getattr(backwards, field)[len(CURVES) - 1 - i], getattr(alone, field)[0])


def test_rows_that_are_done_are_not_tried_again():
    curves = Curves(*CURVES.values())
    found = curves.search(trials=9)
    assert torch.equal(curves.calls, found.trials)
    spent = dict(zip(CURVES, found.trials.tolist(), strict=True))
    assert spent["easy"] < 5
    assert spent["never"] == spent["worse"] == 9
    assert spent["breaks"] == 2  # strengths 1 and 2
    assert spent["explodes"] == 3


def test_out_of_reach_the_best_failure_is_returned():
    names = list(CURVES)
    curves = Curves(*CURVES.values())
    found = curves.search(trials=6)
    never, worse, hump = (names.index(n) for n in ("never", "worse", "hump"))
    w = float(found.strength[never])
    assert 1.25**5 <= w <= 2**5  # ever further, as far as linear extrapolation says: never less than 1.25 times
    assert found.excess[never] == pytest.approx(-1 - 1 / (1 + w))
    assert found.strength[worse] == 0  # nothing came closer than no edit
    assert found.excess[worse] == -1
    assert found.image[worse] == 0
    assert found.excess[hump] == pytest.approx(curves.curves[hump](float(found.strength[hump])))
    assert found.image[hump] == found.strength[hump]
    assert found.excess[hump] >= curves.curves[hump](1.0)  # no worse than the first trial
    assert found.finite[[never, worse, hump]].all()


def test_a_row_without_finite_margin_stops_and_says_so():
    names = list(CURVES)
    found = Curves(*CURVES.values()).search()
    broken = [names.index("breaks"), names.index("explodes")]
    assert (~found.finite).nonzero().flatten().tolist() == broken
    assert torch.isfinite(found.excess).all()
    assert torch.isfinite(found.image).all()


def test_no_rows_and_no_trials():
    assert len(Curves().search().strength) == 0
    nothing = Curves(power(1.0, 1, 1)).search(trials=0)
    assert (float(nothing.strength), float(nothing.excess), int(nothing.trials)) == (0, -1, 0)


def test_a_first_trial_that_fails_is_on_record():
    """Also where it is the smallest strength worth trying."""
    found = least_strength(
        lambda rows, s: (s.view(-1, 1, 1, 1), s - 1.2), torch.zeros(2, 1, 1, 1), torch.full((2,), -1.2),
        trials=6, tolerance=0.1, first=1.0, least=1.0,
    )  # fmt: skip
    assert (found.excess >= 0).all()
    assert (found.failed < 0).all()
    assert (found.failed >= -0.2 - 1e-6).all()


def test_a_bracket_closes_by_the_illinois_rule():
    """Between -4 at 1 and 2 at 3 false position says 1 + 2 * 4 / 6; after a success there the low value is halved."""
    bracket = Bracket.unbounded(torch.tensor([-4.0]), 0.0)
    for s, h in ((1.0, -4.0), (3.0, 2.0)):
        assert not bracket.bounded
        bracket = bracket.narrow(torch.tensor([s]), torch.tensor([h]))
    assert bracket.bounded
    assert float(bracket.guess(torch.tensor([-6.0]), torch.tensor([2.0]))) == pytest.approx(1 + 2 * 4 / 6)
    bracket = bracket.narrow(torch.tensor([2.0]), torch.tensor([1.0]))
    assert [float(v) for v in vars(bracket).values()] == [1, 2, -2, 1]
    assert float(bracket.guess(torch.tensor([-6.0]), torch.tensor([1.0]))) == pytest.approx(1 + 2 / 3)
    assert bracket.close(0.5)
    assert not bracket.close(0.49)


def test_an_unbounded_bracket_extrapolates_a_quarter_beyond_and_no_further_than_twice():
    low, zero = torch.tensor([2.0, 2.0, 2.0, 2.0]), torch.full((4,), -3.0)
    h = torch.tensor([-1.0, -0.5, -2.9, -4.0])  # roots of the lines at 3, 2.4, 60 and none
    bracket = Bracket.unbounded(zero, 0.0).narrow(low, h)
    assert bracket.guess(zero, h).tolist() == pytest.approx([1.25 * 3, 1.25 * 2.4, 4.0, 4.0])
    assert bracket.keep(torch.tensor([0.0, 2.75, 3.0, 9.0])).tolist() == [2.5, 2.75, 3.0, 4.0]


def test_what_was_found_is_the_closest_failure_until_a_success_and_then_the_least_success():
    found, r = Found.untried(torch.zeros(1, 1, 1, 1), torch.tensor([-1.0])), torch.tensor([0])
    seen = []
    for s, h in ((1.0, -2.0), (2.0, -0.5), (5.0, 3.0), (6.0, 0.1), (4.0, 9.0), (3.0, -0.2)):
        found.note(r, torch.tensor([s]), torch.full((1, 1, 1, 1), s), torch.tensor([h]))
        assert float(found.image) == float(found.strength)
        seen.append((float(found.strength), round(float(found.excess), 4), round(float(found.failed), 4)))
    assert seen == [(0, -1, -2), (2, -0.5, -0.5), (5, 3, -0.5), (5, 3, -0.5), (4, 9, -0.5), (4, 9, -0.2)]
    assert int(found.trials) == 6
    found.note(r, torch.tensor([2.5]), torch.zeros(1, 1, 1, 1), torch.tensor([torch.inf]))
    assert (float(found.strength), bool(found.finite)) == (4, False)
