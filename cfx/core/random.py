"""Counter-based random numbers: what a row receives depends on its counter, never on the batch it came in.

Philox4x32-10 maps a 128-bit counter and a 64-bit key to four 32-bit words. Here the key is the seed and the counter is
(block, row low, row high + kind, stream), so two draws share words only if seed, row, stream and kind are all equal,
and the integers are the same on every device.

Reference: Salmon, Moraes, Dror, Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3".
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.errors import InputError

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
_NORMAL, _UNIFORM = 0, 1 << 31  # bit 31 of the third counter word: normals and uniforms of one stream are independent

Counter = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Counter, key: tuple[int, int]) -> Counter:
    """Philox4x32 with ten rounds.

    Args:
        counter: Four int64 tensors that broadcast together, each entry in [0, 2**32).
        key: Two integers in [0, 2**32).

    Returns:
        Four int64 tensors of the broadcast shape, entries in [0, 2**32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def _multiply(a: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """High and low 32-bit words of a 32 x 32-bit product; int64 wraps, which leaves its 64 bits right."""
    product = a * m
    return (product >> 32) & _LOW, product & _LOW


def _words(blocks: int, seed: int, row: Tensor, stream: int, kind: int) -> Counter:
    """Four `(n, blocks)` tensors of random 32-bit words."""
    if not 0 <= seed < 2**64:
        raise InputError(f"seed: expected an integer in [0, 2**64), got {seed}")
    if not 0 <= stream < 2**32:
        raise InputError(f"stream: expected an integer in [0, 2**32), got {stream}")
    if row.ndim != 1 or row.is_floating_point() or row.dtype == torch.bool:
        raise InputError(f"row: expected a vector of integers, got {row.dtype} of shape {tuple(row.shape)}")
    row = row.to(torch.int64)
    if bool((row < 0).any()):
        raise InputError(f"row: expected integers >= 0, got {int(row.min())}")
    block = torch.arange(blocks, device=row.device)[None, :]
    low, high = (row & _LOW)[:, None], (row >> 32)[:, None] | kind
    return philox((block, low, high, torch.full_like(low, stream)), (seed & _LOW, seed >> 32))


def normal(shape: Sequence[int], *, seed: int, row: Int[Tensor, " n"], stream: int) -> Float[Tensor, "n ..."]:
    """Standard normals that depend only on seed, row, stream and position (Box-Muller, float64 inside).

    Args:
        shape: Shape of one row's draw.
        seed: Key, in [0, 2**64).
        row: Counter of every row, integers >= 0; the result lives on its device.
        stream: Which of the row's independent draws, in [0, 2**32).

    Returns:
        `(n, *shape)` float32; |z| < 6.8.

    Raises:
        InputError: seed, row or stream out of range.
    """
    size = math.prod(shape)
    a, b, c, d = _words(-(-size // 4), seed, row, stream, _NORMAL)
    z = torch.stack([*_box_muller(a, b), *_box_muller(c, d)], dim=-1)
    return z.flatten(1)[:, :size].reshape(len(row), *shape)


def _box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals (float32) from two 32-bit words; the half keeps the logarithm finite."""
    radius = ((a.double() + 0.5) * 2.0**-32).log().mul(-2).sqrt()
    angle = b.double() * (2 * math.pi * 2.0**-32)
    return (radius * angle.cos()).float(), (radius * angle.sin()).float()


def uniform(shape: Sequence[int], *, seed: int, row: Int[Tensor, " n"], stream: int) -> Float[Tensor, "n ..."]:
    """Uniforms in [0, 1) on multiples of 2**-24; arguments and errors as in `normal`, `(n, *shape)` float32."""
    size = math.prod(shape)
    words = torch.stack(_words(-(-size // 4), seed, row, stream, _UNIFORM), dim=-1)
    u = (words >> 8).float() * 2.0**-24
    return u.flatten(1)[:, :size].reshape(len(row), *shape)


def permutation(n: int, *, seed: int, stream: int) -> Int[Tensor, " n"]:
    """A random order of 0 .. n-1 (stable argsort of random words), on the CPU.

    Raises:
        InputError: n negative, seed or stream out of range.
    """
    if n < 0:
        raise InputError(f"n: expected a number of items >= 0, got {n}")
    words = torch.stack(_words(-(-n // 4), seed, torch.zeros(1, dtype=torch.int64), stream, _UNIFORM), dim=-1)
    return words.flatten()[:n].argsort(stable=True)
