"""Any method of captum as one of these: `Captum(captum.attr.LayerConductance, {...})`.

captum is not imported here; the class is handed in. It is given a module that returns the output that is asked about,
one number an image, with the user's classifier inside, so that methods that hook its parts find them. Whether what
comes out is complete is measured as for every other method, where captum itself keeps silent.

Reference: Kokhlikyan et al. (2020), "Captum: a unified and generic model interpretability library for PyTorch".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.attribution.method import Family, Found, Question, Whole
from cfx.core.errors import InputError, in_one_line


@dataclass(frozen=True)
class Captum:
    """A method of captum.

    Attributes:
        kind: Its class; with settings of the constructor bound by `functools.partial`.
        settings: What its `attribute` is given beside images, baselines and targets.
    """

    kind: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    name: ClassVar[str] = "captum"
    whole: ClassVar[Whole] = "change"
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = False

    def explain(self, question: Question) -> Found:
        """The maps of a batch.

        Raises:
            InputError: captum fails; its own words are in the message, and what to do where it wants a layer.
        """
        scored = _Scored(question)
        try:
            made = self.kind(scored)
            given = {"baselines": question.baseline} if "baselines" in signature(made.attribute).parameters else {}
            with torch.enable_grad():
                found = made.attribute(
                    question.x.detach().clone().requires_grad_(True),
                    additional_forward_args=(torch.arange(len(question), device=question.x.device),),
                    **given | dict(self.settings),
                )
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"captum: {getattr(self.kind, '__name__', 'a method')}: {in_one_line(error)}") from error
        maps = (found[0] if isinstance(found, tuple) else found).detach()
        if maps.shape[0] != len(question) or maps.shape[2:] != question.x.shape[2:]:
            raise InputError(f"captum: expected maps of the images' shape {question.space}, got {tuple(maps.shape)}")
        return Found(maps)


class _Scored(nn.Module):
    """The output that is asked about, as a module with the classifier inside."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        inner = question.judge.classifier
        self.classifier = inner if isinstance(inner, nn.Module) else None
        self.question = [question]  # in a list, as a module would hold another's parts

    def forward(self, x: Float[Tensor, "m c *space"], rows: Tensor) -> Float[Tensor, " m"]:
        question = self.question[0]
        rows = rows.long().repeat(len(x) // len(rows))
        question.spent.count("classifier", rows)
        return question.score(question.judge.logits(x), rows)
