"""What `explain` returns: counterfactual images with their own verification, and the verdict of every row."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.codes import Code
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.rows import Index, Rows, about
from cfx.counterfactual.reading import Reading
from cfx.counterfactual.standing import Standing
from cfx.models.gate import OUT
from cfx.models.goal import Goal

if TYPE_CHECKING:
    from cfx.atlas.store import Exists


class Verdict(Code):
    """What became of one row; `meaning` says it in a sentence."""

    FLIPPED = 0, "The classifier reaches the asked margin for the target class on the final image."
    ALREADY = 1, "It did so on the input already; the image is returned unchanged."
    BUDGET = 2, "No strength within the budget reached the margin; of the closest attempt, what the classifier reads."
    UNSTABLE = 3, "The margin is reached, but the decision does not survive re-noising: it may be adversarial."
    REFUSED = 4, "The row could not be worked on (the classifier's output was not finite); returned unchanged."


@dataclass(frozen=True)
class Counterfactuals(Rows):
    """Counterfactual images with their own verification, one row an input; no row is ever dropped.

    Attributes:
        x: Inputs `(n, c, *space)` in [-1, 1].
        x_cf: Counterfactuals, same shape; equal to `x` bit for bit where `edited` is False.
        target: Target class of each row.
        probs_before: Class probabilities of `x`, `(n, k)` (one logit gives k = 2 columns).
        probs_after: Class probabilities of the final `x_cf`.
        edited: Region that was changed, `(n, 1, *space)`.
        margin: Margin (target logit minus best other, natural-log units) the row was asked to reach.
        margin_after: Margin of the final image.
        strength: Guidance strength used; 0 where nothing was changed.
        verdict: `Verdict` codes.
        row: Index of the row in the user's input, also its randomness counter.
        nfe_unet_forward: Generator (U-Net) evaluations spent on the row, search included.
        nfe_unet_backward: Back-propagations through the generator.
        nfe_classifier: Classifier forward evaluations.
        nfe_classifier_backward: Classifier gradients.
        seconds: Wall-clock seconds spent on the row: an equal share of those of its batch.
        depth: `typical` or `boundary`.
        seed: Seed of all randomness.
        oracle_probs_before: As `probs_before`, by an independent oracle, or None.
        oracle_probs_after: As `probs_after`, by an independent oracle, or None.
        smaller: Margin of the next smaller change the method tried and rejected: where it is below `margin` the result
            is a certified local minimum. NaN for rows, None for results, without one.
        gate_p: p-value of every edited image by the gate, in (0, 1]: small where it is out of distribution; NaN in rows
            that were not edited, None without a gate.
        gate_p_before: The same of every input.
        nfe_to_flip: Generator evaluations and back-propagations spent on the row until an attempt first flipped the
            classifier; NaN for rows where none did, None for results that did not count.
        consent: How far the classifier agreed with the generator's class-conditional difference, 0 (it looks at
            something else, or is moved as much by the same difference elsewhere) to 1; NaN or None where the method
            does not ask.
        read: Part of the edit that the classifier reads (`cfx.counterfactual.reading`), `(n, 1, *space)`.
        read_share: Share of the edit's energy (sum of squares) in that part; as the next three NaN in rows where the
            edit brought less than a tenth of the way to `margin`. Where the rest was taken back (verdict `budget`, or
            `part="read"`), the figures are those of the edit before.
        read_alone: Share of the edit's change of margin that the read part brings by itself.
        rest_alone: Share that the rest of the edit brings by itself.
        read_error: Completeness error of the integrated gradients, relative to that change.
        method: Name of the method.
        standing: What was found out about the networks of the call (`counterfactual.standing.Standing`, as it is kept);
            empty where nobody looked.
        cohort: The inputs with what is known about them: names, labels, classes, geometry, covariates. None where the
            result was made by hand, or is some rows of an atlas, which keeps them beside it (`Atlas.read_cohort`).
    """

    x: Float[Tensor, "n c *space"] = field(metadata=about(array="factual"))
    x_cf: Float[Tensor, "n c *space"] = field(metadata=about(array="counterfactual"))
    target: Int[Tensor, " n"]
    probs_before: Float[Tensor, "n k"]
    probs_after: Float[Tensor, "n k"]
    edited: Bool[Tensor, "n 1 *space"]
    margin: Float[Tensor, " n"]
    margin_after: Float[Tensor, " n"]
    strength: Float[Tensor, " n"]
    verdict: Int[Tensor, " n"] = field(metadata=about(codes=Verdict))
    row: Int[Tensor, " n"]
    nfe_unet_forward: Int[Tensor, " n"]
    nfe_unet_backward: Int[Tensor, " n"]
    nfe_classifier: Int[Tensor, " n"]
    nfe_classifier_backward: Int[Tensor, " n"]
    seconds: Float[Tensor, " n"]
    depth: str
    seed: int
    oracle_probs_before: Float[Tensor, "n oracle_class"] | None = None
    oracle_probs_after: Float[Tensor, "n oracle_class"] | None = None
    smaller: Float[Tensor, " n"] | None = None
    consent: Float[Tensor, " n"] | None = None
    read: Bool[Tensor, "n 1 *space"] | None = None
    read_share: Float[Tensor, " n"] | None = None
    read_alone: Float[Tensor, " n"] | None = None
    rest_alone: Float[Tensor, " n"] | None = None
    read_error: Float[Tensor, " n"] | None = None
    nfe_to_flip: Float[Tensor, " n"] | None = None
    gate_p: Float[Tensor, " n"] | None = None
    gate_p_before: Float[Tensor, " n"] | None = None
    method: str = "minimal"
    standing: Mapping[str, Any] = field(default_factory=dict)
    cohort: Cohort | None = None

    def __post_init__(self) -> None:
        """Check every column, and that the cohort is of these rows."""
        super().__post_init__()
        if self.cohort is not None and len(self.cohort) != len(self.x):
            raise InputError(f"Counterfactuals.cohort: expected {len(self.x)} rows, got {len(self.cohort)}")

    def plain(self) -> dict[str, Any]:
        """The fields that are not per row."""
        left_out = {"cohort"} if self.standing else {"cohort", "standing"}
        return {name: value for name, value in super().plain().items() if name not in left_out}

    def _traits(self) -> Iterator[str]:
        """What is worth saying of all rows, first of all that they were not judged."""
        if not self.judged:
            yield f"not judged ({self.why})"
        yield from (trait for trait in super()._traits() if not trait.startswith("standing "))

    @property
    def judged(self) -> bool:
        """Whether the call may be read as an explanation: False where `why` says why not."""
        return Standing.of(self.standing).judged

    @property
    def why(self) -> str:
        """Why the call was not judged; empty where it was."""
        return Standing.of(self.standing).why

    @property
    def remarks(self) -> tuple[str, ...]:
        """What else is known of the networks of the call that a reader should know."""
        return tuple(Standing.of(self.standing).remarks.values())

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """As `Rows.cat`; what is known of the inputs is kept where it is of all, of the networks where it is of any."""
        told = reduce(Standing.beside, [Standing.of(part.standing) for part in parts]).told() if parts else {}
        differ = any(part.standing != parts[0].standing for part in parts)
        found = super().cat([part.replace(standing=told) for part in parts] if differ else parts)
        known = [part.cohort for part in parts if part.cohort is not None]
        return found.of_cohort(Cohort.cat(known)) if len(known) == len(parts) > 1 else found

    def __getitem__(self, rows: Index) -> Self:
        """The results of these rows, and what is known of their inputs."""
        found = super().__getitem__(rows)
        return found if self.cohort is None else found.of_cohort(self.cohort[rows])

    def put(self, rows: Index, part: Self) -> Self:
        """As `Rows.put`; what is known of the inputs is kept where both know it, of the networks as it was here."""
        found = super().put(rows, part.replace(standing=self.standing))
        both = self.cohort is not None and part.cohort is not None
        return found.of_cohort(self.cohort.put(rows, part.cohort)) if both else found  # type: ignore[union-attr,arg-type]

    def of_cohort(self, cohort: Cohort) -> Self:
        """These results with what is known of their inputs; the images are kept once."""
        return self.replace(cohort=cohort.replace(x=self.x))

    @property
    def ids(self) -> tuple[str, ...]:
        """Name of every row; its number where it has none."""
        return tuple(map(str, self.row.tolist())) if self.cohort is None else self.cohort.ids

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, as far as they are known."""
        return [] if self.cohort is None else self.cohort.classes

    def save(self, path: str | PathLike[str], exists: "Exists" = "refuse") -> Path:
        """Write the result, with what is known of its inputs, as an atlas; `cfx.read_atlas` reads it.

        Args:
            path: Folder to create.
            exists: What to do where there is an atlas: `refuse`, `resume` it (it must be of the same rows and images'
                shapes; rows that it has are kept as they are), or `overwrite` it.

        Returns:
            The folder.

        Raises:
            InputError: no path, or another word for `exists`.
            AtlasError: it exists and must not be touched, or the disk refuses.
        """
        from cfx.atlas.store import write_atlas

        if not isinstance(path, str | PathLike):
            raise InputError(f"path: expected a folder to create, got {path!r:.60}")
        return write_atlas(path, self, exists=exists).path

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from cfx.counterfactual.picture import html

        known = dict(enumerate(self.classes))
        to = [known.get(k, f"class {k}") for k in self.target.tolist()]
        reading = [f", {word}" if word and self.judged else "" for word in self.reading]
        rows = zip(self.ids, to, self.verdicts, reading, strict=True)
        names = [f"{name}, to {goal}: {verdict}{word}" for name, goal, verdict, word in rows]
        return html(repr(self), self.x, self.x_cf, names, self.read if self.judged else None)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdict of every row as a lower-case word."""
        names = {int(verdict): verdict.name.lower() for verdict in Verdict}
        return tuple(names[code] for code in self.verdict.tolist())

    @property
    def reading(self) -> tuple[str, ...]:
        """How the classifier reads the edit of every row: `whole`, `redundant`, `carried`, or "" where it has none."""
        if self.read_share is None or self.rest_alone is None:
            return ("",) * len(self)
        pairs = zip(self.read_share.tolist(), self.rest_alone.tolist(), strict=True)
        return tuple(Reading.of(share, rest).value for share, rest in pairs)

    @property
    def x_read(self) -> Float[Tensor, "n c *space"]:
        """The images with only the read part of their edits; the counterfactuals where nothing is known of it."""
        return self.x_cf if self.read is None else torch.where(self.read, self.x_cf, self.x)

    @property
    def flipped(self) -> Bool[Tensor, " n"]:
        """Rows whose final image the classifier gives to the target (largest probability), whatever the verdict."""
        return self.probs_after.argmax(1) == self.target

    @property
    def certified(self) -> Bool[Tensor, " n"]:
        """Rows whose next smaller change is on record as failing."""
        if self.smaller is None:
            return torch.zeros_like(self.flipped)
        return self.smaller < self.margin

    @property
    def reached(self) -> Bool[Tensor, " n"]:
        """Rows whose final image reaches the margin asked for, verified by the classifier."""
        return Goal(self.margin).reached(self.margin_after)

    @property
    def gated_out(self) -> Bool[Tensor, " n"]:
        """Rows whose edited image is out of distribution to the gate, at the level .05; none without a gate."""
        return torch.zeros_like(self.flipped) if self.gate_p is None else self.gate_p <= OUT

    @property
    def validity(self) -> float:
        """The metric of that name, of these rows."""
        return float(self.reached.double().mean())

    @property
    def oracle_validity(self) -> float | None:
        """The metric of that name, of these rows; None without an oracle."""
        if self.oracle_probs_after is None:
            return None
        return float((self.oracle_probs_after.argmax(1) == self.target).double().mean())
