"""Who is in two cohorts that must have nobody in common, such as those of a temperature and of a threshold.

What a cohort has tuned looks better on it than on others: probabilities whose temperature was fitted to these rows are
surer there, their scores smaller, and a threshold made of them too low.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from cfx.core.cohort import Source, subject_names
from cfx.core.errors import InputError


@runtime_checkable
class Named(Protocol):
    """What remembers whom it was made of."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the subjects."""


People = Named | Source | Sequence[str]
"""Subjects: their names, a cohort, or what was fitted to some."""


def people(of: People, n: int | None = None, name: str = "ids") -> tuple[str, ...]:
    """Names of the subjects of rows; none where an empty tuple says that nobody is named.

    Args:
        of: Who they are.
        n: Number of rows that they must be of; None for any.
        name: What they are called in errors.

    Raises:
        InputError: a text for all, or another number of them than rows.
    """
    if isinstance(of, str) or not isinstance(of, Named | Source | Iterable):
        raise InputError(f"{name}: expected a name a row, got {of!r:.60}")
    found = subject_names(of) if isinstance(of, Source) else tuple(map(str, of.ids if isinstance(of, Named) else of))
    if n is not None and len(found) != n and of != ():
        raise InputError(f"{name}: expected a name a row, {n}, got {len(found)}")
    return found


def check_disjoint(ids: tuple[str, ...], apart_from: Sequence[People], name: str = "ids") -> None:
    """Refuse subjects that are among others.

    Args:
        ids: Names.
        apart_from: Who must not be among them; those without names cannot be compared.
        name: What `ids` are called in errors.

    Raises:
        InputError: some are, or there are no names to compare.
    """
    if isinstance(apart_from, str | Named | Source):
        raise InputError(f"apart_from: expected a list of cohorts or names, got {apart_from!r:.60}")
    for k, other in enumerate(apart_from):
        theirs = people(other, name=f"apart_from[{k}]")
        if not ids or not theirs:
            who = name if not ids else f"apart_from[{k}]"
            raise InputError(f"{who}: expected names of the subjects, which must not be in both, got none; pass ids")
        if both := sorted(set(ids) & set(theirs)):
            raise InputError(
                f"{name}: expected other subjects than those of apart_from[{k}], got {len(both)} in both, {both[:4]}; "
                "temperature, threshold and reference need a cohort each"
            )
