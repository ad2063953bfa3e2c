"""Are networks trained apart, or is one of them counted several times?

A crossed test takes networks for a random sample of a way of training. Copies of one have no spread at all, so that any
number of them would speak with a certainty that one network cannot have. Two networks are one where all their weights
are equal, or every answer to every image in every arm is, bit for bit: trained from two seeds they differ in some.
Answers of two values at most (a decision, or a logit that is saturated everywhere) prove nothing.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from cfx.confounder.intervention import Scores
from cfx.core.errors import InputError


def check_weights(networks: Sequence[object], answers: Sequence[Tensor]) -> None:
    """Refuse networks that are the same object, or hold the same weights.

    Args:
        networks: Networks.
        answers: What each says of the same image: equal weights may stand before heads that are no modules.

    Raises:
        InputError: naming which are the same.
    """
    said = [tuple(f"{value:.6g}" for value in logits.flatten().tolist()) for logits in answers]
    _refuse([(_weights(f), v) for f, v in zip(networks, said, strict=True)], "with the same weights")


def check_answers(scores: Scores) -> None:
    """Refuse networks that said the same of every image in every arm.

    Raises:
        InputError: naming which are the same.
    """
    said = torch.cat([*scores.score.values()]).unbind(1)
    _refuse([(k,) if len(v.unique()) < 3 else _bits(v) for k, v in enumerate(said)], "with the same answers")


def _refuse(marks: Sequence[Hashable], how: str) -> None:
    """Refuse equal marks."""
    alike: dict[Hashable, list[int]] = {}
    for k, mark in enumerate(marks):
        alike.setdefault(mark, []).append(k)
    twice = [f"classifiers[{', '.join(map(str, same))}]" for same in alike.values() if len(same) > 1]
    if twice:
        raise InputError(
            f"classifiers: expected networks trained apart, got one of them several times: {'; '.join(twice)} are "
            f"equal, {how}; train each from another seed, or plan `seeds` for those that differ"
        )


def _weights(network: object) -> Hashable:
    """What two networks of equal weights have alike; of a function, or without anything trained, the object itself."""
    if not isinstance(network, nn.Module) or not any(True for _ in network.parameters()):
        return id(network)
    return (type(network), *((name, _bits(value)) for name, value in network.state_dict().items()))


def _bits(value: object) -> Hashable:
    """The shape and bytes of a tensor as they are kept, or what else is in the state of a network."""
    if not isinstance(value, Tensor):
        return repr(value)
    plain = value.detach().cpu().contiguous()
    return (plain.dtype, plain.shape, hash(plain.reshape(-1).view(torch.uint8).numpy().tobytes()))
