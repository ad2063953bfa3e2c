"""What a classifier reads, in volumes: known, trained and untrained ones, with a generator in closed form.

Class 1 is brighter in one place and darker in another, and the generator shows both whatever a classifier looks at. The
mean brightness is the same, so that networks with initial weights have nothing to go by.
"""

import pytest
import torch

from cfx.commands.bench.cases import FAMILIES
from cfx.commands.bench.known import Centred, Exchanged, Sum, Weighted, patches
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual import explain
from cfx.counterfactual.standing import look
from cfx.models.goal import recognised
from cfx.models.judge import Judge
from tests.counterfactual.toys import ClassGaussian, draw

SPACE = (32, 32, 32)
GAP = 0.35


def place(*at):
    """A cube of six voxels an edge."""
    where = torch.zeros(1, *SPACE)
    where[(0, *(slice(k, k + 6) for k in at))] = 1.0
    return where


HERE, THERE = place(6, 6, 12), place(18, 18, 12)
MEANS = torch.stack([-0.5 * GAP * (HERE - THERE), 0.5 * GAP * (HERE - THERE)])


def people(n, seed):
    y = torch.arange(n) % 2
    return Cohort(draw(MEANS, y, seed), y=y)


REFERENCE = people(48, 2)


def ran(network):
    return explain(people(4, 1), network, ClassGaussian(MEANS), reference=REFERENCE)


def inside(result, where):
    """Share of the read voxels that lie in a place."""
    return (result.read & (where != 0)).flatten(1).sum(1) / result.read.flatten(1).sum(1)


@pytest.mark.parametrize("side", [1, 3])
def test_of_a_patch_only_the_patch_is_read_and_the_rest_is_carried(side):
    for network in patches(REFERENCE, side, 2, seed=11):
        result = ran(Centred.on(network, REFERENCE.x))
        assert result.validity == 1
        assert (inside(result, network.weight) >= 0.99).all()
        assert (result.read_alone >= 0.9).all()
        assert (result.rest_alone <= 0.1).all()
        assert set(result.reading) == {"carried"}


def test_of_two_places_only_that_is_read_which_the_classifier_looks_at():
    result = ran(Centred.on(Weighted(HERE), REFERENCE.x))
    assert (inside(result, HERE) == 1).all()
    assert set(result.reading) == {"carried"}
    shown = ((result.x_cf - result.x).abs() * THERE).flatten(1).sum(1)
    assert (shown > 0.2 * 216 * GAP).all()  # the generator shows the other place as well


def test_a_classifier_of_the_whole_difference_reads_it():
    result = ran(Centred.on(Sum([Weighted(HERE), Weighted(THERE)], [1.0, -1.0]), REFERENCE.x))
    assert result.judged
    assert set(result.reading) <= {"whole", "redundant"}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untrained_network_is_not_judged_and_it_is_said_why(family):
    few = REFERENCE[:24]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        judge = Judge(Centred.on(FAMILIES[family](SPACE).eval(), few.x))
    found = look(judge, None, few, few, recognised(judge, few))
    assert not found.judged
    assert "the classifier is not shown to know the classes of reference" in found.why


def test_exchanged_columns_are_refused():
    known = Centred.on(Sum([Weighted(HERE), Weighted(THERE)], [1.0, -1.0]), REFERENCE.x)
    with pytest.raises(InputError, match="columns in the order of the labels"):
        ran(Exchanged(known))
