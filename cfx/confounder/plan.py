"""The analysis plan: what a verdict depends on, fixed before the first network is run."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cfx.core.errors import InputError

Kind = Literal["shape", "tag", "implant", "ruler", "scanner"]
Role = Literal["confounder", "mediator", "collider"]


class Plan(BaseModel):
    """Margins, arms and levels of one reliance test."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    confounder: str
    """What is suspected."""
    role: Role = "confounder"
    """Its causal role, which data cannot tell: a `mediator` (atrophy changes the shape of a brain) is a legitimate
    reason of a classifier, and reliance on it is never called a fault."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Level of all tests and intervals."""
    margin: float = Field(default=0.1, gt=0)
    """Largest effect that counts as none, as a share of the mean |logit| on untouched images: of the confounder, and of
    every control (identity, round trips), which have to be shown to lie within it."""
    doses: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Steps between none (0) and all (1) of the change."""
    seeds: int = Field(default=8, ge=1)
    """Networks trained alike but for their seed. Below 5 their variance is hardly known, below 6 a sign flip over them
    cannot confirm anything at alpha 0.05; with one the verdict is about that network alone."""
    flips: int = Field(default=9999, ge=99)
    """Random sign flips of the confirming test."""
    seed: int = Field(default=0, ge=0)
    """Seed of donors, flips and permutations."""
    judge_anyway: bool = False
    """Give a verdict although the networks are not shown to know their classes."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if list(self.doses) != sorted(set(self.doses)) or not all(0 < t < 1 for t in self.doses):
            raise ValueError(f"doses: expected increasing numbers in (0, 1), got {list(self.doses)}")
        return self

    def check_networks(self, count: int) -> None:
        """Refuse another number of networks than was planned: the verdict depends on it.

        Raises:
            InputError: they are not `seeds`.
        """
        if count != self.seeds:
            raise InputError(f"plan.seeds: expected the number of networks, {count}, got {self.seeds}")
