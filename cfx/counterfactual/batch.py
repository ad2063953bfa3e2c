"""One batch of an explanation: hand the rows that must change to the method, then judge what it returns."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.broadcast import each
from cfx.core.denoiser import Generative, Latent
from cfx.core.gates import Gate
from cfx.core.random import normal
from cfx.counterfactual.method import Meter, Method, Problem, Proposal
from cfx.counterfactual.reading import Parts, parts_of
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.models.gate import p_values
from cfx.models.goal import Goal
from cfx.models.judge import Judge, margin_of

_STABILITY_STREAM = 1 << 21
_STABILITY_NOISE = 0.1  # standard deviation, in image units, of the re-noising that a decision must survive


@dataclass(frozen=True)
class Run:
    """What is the same for all batches of one call."""

    judge: Judge
    generator: object
    reviewer: Generative | None
    method: Method
    goals: Goal
    depth: str
    seed: int
    device: torch.device
    oracle: Judge | None
    part: str = "whole"
    gate: Gate | None = None

    def batch(
        self,
        x: Float[Tensor, "n c *space"],
        logits: Float[Tensor, "n k"],
        target: Int[Tensor, " n"],
        row: Int[Tensor, " n"],
        allowed: Bool[Tensor, "n 1 *space"] | None,
    ) -> Counterfactuals:
        """Explain one batch and verify it; everything in and out lives on the CPU."""
        began = time.perf_counter()
        n, goal = len(x), self.goals[target]
        todo = (margin_of(logits, target) < goal.margin).nonzero().flatten()
        rows = _untouched(x)
        if len(todo):
            for name, values in self._changed(self._problem(x, logits, target, row, allowed, todo)).items():
                rows[name][todo] = values.cpu()
        after = self.judge.answers(rows["x_cf"])
        margin_after, verdict = margin_of(after, target), rows.pop("verdict")
        reached = (verdict == Verdict.FLIPPED) | (verdict == Verdict.UNSTABLE)
        missed = reached & ~goal.reached(margin_after)  # the final image has the last word
        rows["nfe_classifier"] += 2
        seconds = time.perf_counter() - began
        edited = (rows["x_cf"] != x).any(1, keepdim=True)
        rows |= self._gated(x, rows["x_cf"], edited)
        return Counterfactuals(
            x=x,
            target=target,
            probs_before=logits.softmax(1),
            probs_after=after.softmax(1),
            edited=edited,
            margin=goal.margin,
            margin_after=margin_after,
            verdict=verdict.masked_fill(missed, int(Verdict.BUDGET)),
            row=row,
            depth=self.depth,
            method=self.method.name,
            seed=self.seed,
            seconds=torch.full((n,), seconds / n),
            oracle_probs_before=None if self.oracle is None else self.oracle.probabilities(x),
            oracle_probs_after=None if self.oracle is None else self.oracle.probabilities(rows["x_cf"]),
            **rows,
        )

    def _gated(self, x: Tensor, x_cf: Tensor, edited: Tensor) -> dict[str, Tensor]:
        """What the gate says of the images, and of those that were edited again; nothing without one.

        What it evaluates is no row's cost: it takes no part in the search.
        """
        if self.gate is None:
            return {}
        before, rows = p_values(self.gate, x, device=self.device), edited.flatten(1).any(1)
        after = torch.full_like(before, torch.nan)
        after[rows] = p_values(self.gate, x_cf[rows], device=self.device)
        return {"gate_p": after, "gate_p_before": before}

    def _changed(self, problem: Problem) -> dict[str, Tensor]:
        """What became of the rows that must change, by the names of the result's fields."""
        found = self.method.propose(problem)
        x = problem.x
        image = problem.restrict(problem.everyone, torch.where(each(found.finite, x), found.image, x))
        image, parts, margin = self._read(problem, image)
        rows = {
            "x_cf": image,
            "verdict": self._review(problem, found, image, margin),
            "strength": found.strength.masked_fill(~found.finite, 0),
            "smaller": found.smaller,
            "read": parts.read,
            "read_share": parts.share,
            "read_alone": parts.alone,
            "rest_alone": parts.rest,
            "read_error": parts.error,
        }
        rows |= {} if found.consent is None else {"consent": found.consent}
        return rows | {f"nfe_{kind}": counts for kind, counts in vars(problem.meter).items()}

    def _problem(
        self, x: Tensor, logits: Tensor, target: Tensor, row: Tensor, allowed: Tensor | None, todo: Tensor
    ) -> Problem:
        """The rows that must change, on the device."""
        # the best class but the target: the present one, also of an image that leans to the target already
        source = logits[todo].scatter(1, target[todo, None], -torch.inf).argmax(1)
        target = target[todo]
        return Problem(
            x=x[todo].to(self.device),
            source=source.to(self.device),
            target=target.to(self.device),
            goal=self.goals[target].to(self.device),
            before=margin_of(logits[todo], target).to(self.device),
            row=row[todo].to(self.device),
            seed=self.seed,
            judge=self.judge,
            generator=self.generator,
            meter=Meter(len(todo), self.device),
            allowed=None if allowed is None else allowed[todo].to(self.device),
            labelled=self.judge.speaks(self.generator, logits.shape[1]),
        )

    def _read(self, problem: Problem, image: Tensor) -> tuple[Tensor, Parts, Tensor]:
        """The images that are returned, what the classifier reads of their edits, and their margins.

        Where the margin was missed (unless the attempt itself is asked for), or where only the read part is, the rest
        of the edit is taken back: no picture is returned of what the classifier does not look at.
        """

        def margin(rows: Tensor, images: Tensor) -> Tensor:
            return problem.excess(rows, images) + problem.margin[rows]

        only, after = self.part == "read", margin(problem.everyone, image)
        parts = parts_of(problem.x, image, problem.before, after, margin, problem.gradient, problem.margin, reach=only)
        cut = (~problem.goal.reached(after) & (self.part != "attempt")) | only
        image = torch.where(each(cut, image) & ~parts.read, problem.x, image)
        left = problem.before + (after - problem.before) * parts.alone.nan_to_num(0)
        return image, parts, torch.where(cut, left, after)

    def _review(
        self, problem: Problem, found: Proposal, image: Tensor, margin: Float[Tensor, " b"]
    ) -> Int[Tensor, " b"]:
        """The verdict of every row, before the last word of the classifier on the final image."""
        reached = problem.goal.reached(margin)
        verdict = torch.where(reached, int(Verdict.FLIPPED), int(Verdict.BUDGET))
        rows = reached.nonzero().flatten()
        if self.reviewer is not None and len(rows):
            stable = self._survives(self.reviewer, image[rows], problem, rows)
            verdict[rows[~stable]] = int(Verdict.UNSTABLE)
        return torch.where(found.finite, verdict, int(Verdict.REFUSED))

    @torch.no_grad()
    def _survives(self, reviewer: Generative, x: Tensor, problem: Problem, rows: Tensor) -> Bool[Tensor, " r"]:
        """Does the decision about images of these rows outlive noise of a tenth of the range and one denoising step?

        That step is without label. A tolerance may be finer than what noise does to a value: with ordered classes, half
        of the way has to.
        """
        schedule = reviewer.schedule
        t = next(t for t in range(1, schedule.T + 1) if float(schedule.sigma(t, x).max()) >= _STABILITY_NOISE)
        z = reviewer.encode(x) if isinstance(reviewer, Latent) else x
        noise = normal(z.shape[1:], seed=self.seed, row=problem.row[rows], stream=_STABILITY_STREAM).to(z)
        again = reviewer(schedule.noised(z, t, noise), t).mean
        if isinstance(reviewer, Latent):
            again = reviewer.decode(again) + x - reviewer.decode(z)
        problem.meter.count("unet_forward", rows)
        problem.meter.count("classifier", rows)
        after = self.judge.margin(again.clamp(-1, 1), problem.target[rows], problem.source[rows])
        return after > ((problem.before + problem.margin)[rows] / 2 if problem.goal.two_sided else 0)


def _untouched(x: Float[Tensor, "n c *space"]) -> dict[str, Any]:
    """What a row that needs no change has in the fields that `Run` fills in for the others."""
    names = ("smaller", "consent", "read_share", "read_alone", "rest_alone", "read_error")
    rows: dict[str, Any] = {name: torch.full((len(x),), torch.nan) for name in names}
    rows |= {f"nfe_{kind}": counts for kind, counts in vars(Meter(len(x))).items()}
    rows |= {"x_cf": x.clone(), "read": torch.zeros_like(x[:, :1], dtype=torch.bool), "strength": torch.zeros(len(x))}
    return rows | {"verdict": torch.full((len(x),), int(Verdict.ALREADY))}
