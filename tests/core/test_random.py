import itertools

import pytest
import torch
from scipy import stats

from cfx.core.errors import InputError
from cfx.core.random import normal, permutation, philox, uniform

# Known answers of philox4x32-10 from the Random123 distribution: counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_known_answers(counter, key, words):
    c0, c1, c2, c3 = (torch.tensor([int(c, 16)]) for c in counter.split())
    k0, k1 = (int(k, 16) for k in key.split())
    assert " ".join(f"{int(w):08x}" for w in philox((c0, c1, c2, c3), (k0, k1))) == words


@pytest.mark.parametrize("draw", [normal, uniform])
def test_a_row_does_not_depend_on_its_batch(draw):
    every = draw((1, 5, 7), seed=3, row=torch.arange(10), stream=4)
    some = draw((1, 5, 7), seed=3, row=torch.tensor([7, 2]), stream=4)
    assert torch.equal(some, every[[7, 2]])


@pytest.mark.parametrize("draw", [normal, uniform])
def test_every_part_of_the_counter_matters(draw):
    base = {"seed": 5, "row": 6, "stream": 7}
    others = [{"seed": 5 + 2**32}, {"row": 6 + 2**32}, {"stream": 8}, {"seed": 6}, {"row": 7}, {"seed": 7, "stream": 5}]
    draws = [
        draw((4096,), seed=p["seed"], row=torch.tensor([p["row"]]), stream=p["stream"])[0]
        for p in [base, *({**base, **other} for other in others)]
    ]
    for a, b in itertools.combinations(draws, 2):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / 4096**0.5


def test_normals_are_normal():
    z = normal((3, 50, 50), seed=11, row=torch.arange(40), stream=0)
    assert z.dtype == torch.float32
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 0.01
    assert stats.kurtosis(z.flatten().numpy()) == pytest.approx(0, abs=0.03)


def test_positions_rows_and_streams_are_uncorrelated():
    z = torch.stack([normal((512,), seed=1, row=torch.arange(6), stream=s) for s in range(6)]).flatten(0, 1).double()
    pairs = torch.corrcoef(z)[*torch.triu_indices(36, 36, offset=1)] * 512**0.5
    assert pairs.abs().max() < 4.5
    assert pairs.std() == pytest.approx(1, abs=0.1)  # 630 correlations of independent rows, scaled
    flat = normal((200_000,), seed=1, row=torch.tensor([0]), stream=0)[0].double()
    for lag in (1, 2, 3, 4, 8):  # the four normals of one block, and neighbouring blocks
        assert abs((flat[lag:] * flat[:-lag]).mean()) < 4.5 / 200_000**0.5


def test_uniforms_fill_the_unit_interval_and_differ_from_normals():
    u = uniform((100_001,), seed=0, row=torch.tensor([0]), stream=0)[0]
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert stats.kstest(u.numpy(), "uniform").pvalue > 0.01
    z = normal((100_001,), seed=0, row=torch.tensor([0]), stream=0)[0]
    rank = stats.spearmanr(u.numpy(), z.abs().numpy()).statistic
    assert abs(rank) < 5 / 100_000**0.5


@pytest.mark.parametrize("n", [0, 1, 10, 1001])
def test_permutation_is_one(n):
    order = permutation(n, seed=2, stream=3)
    assert torch.equal(order.sort().values, torch.arange(n))


def test_permutations_are_reproducible_uniform_and_differ_by_stream():
    assert torch.equal(permutation(50, seed=2, stream=3), permutation(50, seed=2, stream=3))
    assert not torch.equal(permutation(50, seed=2, stream=3), permutation(50, seed=2, stream=4))
    first = torch.bincount(torch.stack([permutation(5, seed=2, stream=s)[0] for s in range(400)]), minlength=5)
    assert stats.chisquare(first.numpy()).pvalue > 0.01


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"stream": -1}, "stream"),
        ({"stream": 2**32}, "stream"),
        ({"row": torch.tensor([-3])}, "row"),
    ],
)
def test_counters_out_of_range_are_refused(bad, name):
    with pytest.raises(InputError, match=f"^{name}: expected"):
        normal((2,), **{"seed": 0, "row": torch.tensor([0]), "stream": 0, **bad})
