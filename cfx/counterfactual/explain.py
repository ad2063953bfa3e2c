"""`explain`: verified counterfactuals of a batch of images for the user's own classifier."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.abduction import abduct
from cfx.core.denoiser import Generative
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.values import Cohort, Counterfactuals, Verdict, check_images
from cfx.counterfactual.judge import Judge, at_rest, margin_of, typical_margins
from cfx.counterfactual.minimal import Guidance, Minimal, paste
from cfx.counterfactual.search import least_strength

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

Depth = Literal["typical", "boundary"]
FALLBACK_MARGIN = 2.944
"""Margin asked for at depth `typical` without a reference cohort: log-odds of p = 0.95."""
_BOUNDARY_MARGIN = 1e-3
_STABILITY_STREAM = 1 << 21
_STABILITY_NOISE = 0.1  # standard deviation, in image units, of the re-noising that a decision must survive


def explain(
    x: Float[Tensor, "n c *space"] | Cohort,
    classifier: nn.Module,
    generator: Generative,
    target: int | Int[Tensor, " n"] | None = None,
    *,
    depth: Depth = "typical",
    reference: Cohort | None = None,
    oracle: nn.Module | None = None,
    method: Minimal | None = None,
    seed: int = 0,
    batch_size: int = 32,
    row: Int[Tensor, " n"] | None = None,
    on_batch: Callable[[Counterfactuals], None] | None = None,
    progress: bool = False,
    accelerator: "Accelerator | None" = None,
) -> Counterfactuals:
    """Change each image as little as possible so that the classifier gives it to the target class.

    Args:
        x: Images `(n, c, *space)` in [-1, 1], or a cohort of them.
        classifier: Any module from images to logits (one binary logit or k classes; for multi-label wrap one finding
            in `Finding`). Used in evaluation mode; its state is restored.
        generator: Diffusion model of such images (`cfx.core.denoiser.Denoiser`, or anything like it). If it knows as
            many classes as the classifier, its class-conditional difference joins the guidance.
        target: Class to reach, one for all or one a row; None takes the most probable class besides the predicted one.
        depth: `typical`: as sure as the classifier is of real images of the target class (the median margin over
            `reference`; without one, p = 0.95). `boundary`: the least change that flips.
        reference: Labelled validation cohort that sets the typical margins.
        oracle: Independent classifier that judges the result; the search never sees it.
        method: Settings of the method; None takes the defaults.
        seed: Seed of all randomness. With `row`, it fixes the result whatever the batch size or number of processes.
        batch_size: Images worked on together.
        row: Counter of every image, integers >= 0, default 0 .. n-1.
        on_batch: Called with each finished batch, for example to write it to an atlas: what is done is never lost.
        progress: Show a progress bar (main process only).
        accelerator: Share the rows among its processes; every process returns all rows.

    Returns:
        One row an image, failures included, verified by the classifier on the final image. The evaluations it counts
        are those of the row; one gradient that checks the classifier, once a call and process, belongs to none.

    Raises:
        InputError: images that are not finite, not in [-1, 1] or not of the generator's shape; a classifier with
            non-finite logits or without gradient; a target outside the classes; a reference without some class.
    """
    images, row = _inputs(x, row)
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")
    device = _device(generator) if accelerator is None else accelerator.device
    mine = _share(len(images), accelerator)
    judge = Judge(classifier)
    second = None if oracle is None else Judge(oracle, "oracle")
    with judge.at_rest(), at_rest(generator), at_rest(oracle):
        logits = _first_look(judge, generator, images, mine, device, accelerator)
        goal = _targets(target, logits)
        margin = _margins(depth, classifier, reference, logits.shape[1], device)[goal]
        run = _Run(judge, generator, method or Minimal(), depth, seed, device, second)
        parts = []
        show = progress and (accelerator is None or accelerator.is_main_process)
        for rows in _progress([r for r in mine.split(batch_size) if len(r)], show):
            parts.append(run.batch(images[rows], logits[rows], goal[rows], margin[rows], row[rows]))
            if on_batch is not None:
                on_batch(parts[-1])
    return Counterfactuals.cat(_join(parts, accelerator))


@dataclass(frozen=True)
class _Run:
    """What is the same for all batches of one call."""

    judge: Judge
    generator: Generative
    method: Minimal
    depth: str
    seed: int
    device: torch.device
    oracle: Judge | None

    def batch(self, x: Tensor, logits: Tensor, target: Tensor, margin: Tensor, row: Tensor) -> Counterfactuals:
        """Explain one batch and verify it."""
        began = time.perf_counter()
        before = margin_of(logits, target)
        todo = (before < margin).nonzero().flatten()
        n = len(x)
        x_cf, strength, verdict = x.clone(), torch.zeros(n), torch.full((n,), int(Verdict.ALREADY))
        replays = torch.zeros(n, dtype=torch.long)
        conditional = getattr(self.generator, "classes", None) == logits.shape[1]
        if len(todo):
            # the best class but the target: the present one, also of an image that leans to the target already
            others = logits[todo].scatter(1, target[todo, None], -torch.inf)
            source = others.argmax(1) if conditional else None
            found = self._search(x[todo], source, target[todo], margin[todo], before[todo], row[todo])
            x_cf[todo], strength[todo], replays[todo], verdict[todo] = found
        after = self._verify(x_cf)
        margin_after = margin_of(after, target)
        reached = (verdict == Verdict.FLIPPED) | (verdict == Verdict.UNSTABLE)
        missed = reached & ~(margin_after >= margin - 1e-5)  # the final image has the last word
        worked = torch.zeros_like(replays).index_fill(0, todo, 1)
        k = self.method
        gradients = replays * k.steps * k.copies
        return Counterfactuals(
            x=x,
            x_cf=x_cf,
            target=target,
            probs_before=logits.softmax(1),
            probs_after=after.softmax(1),
            mask=(x_cf != x).any(1, keepdim=True),
            margin=margin,
            margin_after=margin_after,
            strength=strength,
            verdict=verdict.masked_fill(missed, int(Verdict.BUDGET)),
            row=row,
            nfe_forward=replays * k.nfe(conditional) + worked * (k.steps + 1),
            nfe_backward=torch.zeros_like(replays),
            nfe_classifier=2 + worked + replays + gradients,
            nfe_classifier_backward=gradients,
            depth=self.depth,
            seed=self.seed,
            seconds=time.perf_counter() - began,
            oracle_probs_before=None if self.oracle is None else self.oracle.probabilities(x.to(self.device)).cpu(),
            oracle_probs_after=None if self.oracle is None else self.oracle.probabilities(x_cf.to(self.device)).cpu(),
        )

    def _search(
        self, x: Tensor, source: Tensor | None, target: Tensor, margin: Tensor, before: Tensor, row: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image, strength, number of replays and verdict of rows that must change."""
        x, target, margin, before, row = (v.to(self.device) for v in (x, target, margin, before, row))
        source = None if source is None else source.to(self.device)
        label = None if source is None else target
        maps = abduct(self.generator, x, self.method.times(self.generator), seed=self.seed, row=row, label=source)
        guide = Guidance(self.method, self.generator, self.judge, self.seed, row, source, target, label)

        def trial(rows: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
            edited = guide.edit(maps, rows, w)
            candidate = paste(x[rows], edited, self.method.least)
            excess = self.judge.margin(candidate, target[rows]) - margin[rows]
            return candidate, excess.where(edited.isfinite().flatten(1).all(1), torch.nan)

        found = least_strength(trial, x, before - margin, trials=self.method.trials, tolerance=self.method.tolerance)
        image = torch.where(found.finite.view(-1, *[1] * (x.ndim - 1)), found.image, x)
        verdict = torch.where(found.excess >= 0, int(Verdict.FLIPPED), int(Verdict.BUDGET))
        stable = self._survives(image, target, row)
        verdict = torch.where((verdict == Verdict.FLIPPED) & ~stable, int(Verdict.UNSTABLE), verdict)
        verdict = torch.where(found.finite, verdict, int(Verdict.REFUSED))
        strength = torch.where(found.finite, found.strength, torch.zeros_like(found.strength))
        return image.cpu(), strength.cpu(), found.trials.cpu(), verdict.cpu()

    @torch.no_grad()
    def _survives(self, x: Tensor, target: Tensor, row: Tensor) -> Tensor:
        """Does the decision outlive noise of a tenth of the range and one denoising step without label?"""
        schedule = self.generator.schedule
        t = next(t for t in range(1, schedule.T + 1) if float(schedule.sigma(t, x).max()) >= _STABILITY_NOISE)
        noise = normal(x.shape[1:], seed=self.seed, row=row, stream=_STABILITY_STREAM).to(x)
        again = self.generator(schedule.alpha(t, x) * x + schedule.sigma(t, x) * noise, t).mean.clamp(-1, 1)
        return self.judge.margin(again, target) > 0

    @torch.no_grad()
    def _verify(self, x_cf: Tensor) -> Tensor:
        return self.judge.logits(x_cf.to(self.device)).cpu()


def _inputs(x: Tensor | Cohort, row: Tensor | None) -> tuple[Tensor, Tensor]:
    """The images, float32 on the CPU, and their counters."""
    images = x.x if isinstance(x, Cohort) else x
    check_images(images)
    if len(images) == 0:
        raise InputError("x: expected at least one image, got none")
    row = torch.arange(len(images)) if row is None else row.cpu()
    if row.shape != (len(images),):
        raise InputError(f"row: expected one counter for each of {len(images)} images, got shape {tuple(row.shape)}")
    return images.detach().to("cpu", torch.float32), row


def _share(n: int, accelerator: "Accelerator | None") -> Tensor:
    """Which images this process works on."""
    if accelerator is None:
        return torch.arange(n)
    from cfx.training.distributed import my_rows

    return torch.tensor(list(my_rows(n, accelerator)), dtype=torch.long)


def _join(parts: list[T], accelerator: "Accelerator | None") -> list[T]:
    """The parts of all processes, in the order of their images."""
    if accelerator is None:
        return parts
    from cfx.training.distributed import gather_rows

    return [part for some in gather_rows(parts, accelerator) for part in some]


@torch.no_grad()
def _first_look(
    judge: Judge,
    generator: Generative,
    x: Tensor,
    mine: Tensor,
    device: torch.device,
    accelerator: "Accelerator | None",
) -> Tensor:
    """Logits of all images, after making sure that the three objects fit together; processes agree on refusing."""
    shape = getattr(generator, "shape", None)
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise InputError(f"x: expected images of the generator's shape {tuple(shape)}, got {tuple(x.shape[1:])}")
    own = [judge.logits(x[rows].to(device)).cpu() for rows in mine.split(256) if len(rows)]
    logits = torch.cat(_join(own, accelerator))
    bad = (~torch.isfinite(logits)).any(1).nonzero().flatten().tolist()
    if bad:
        raise InputError(f"classifier: expected finite logits, got NaN or infinity for rows {bad[:8]}")
    judge.gradient(x[:1].to(device), logits[:1].argmin(1).to(device))
    return logits


def _targets(target: int | Tensor | None, logits: Tensor) -> Tensor:
    """One target class a row."""
    n, k = logits.shape
    if target is None:
        return logits.topk(2, dim=1).indices[:, 1]
    goal = torch.full((n,), target) if isinstance(target, int) else target.long().cpu()
    if goal.shape != (n,):
        raise InputError(f"target: expected one class or {n} classes, got shape {tuple(goal.shape)}")
    if bool(((goal < 0) | (goal >= k)).any()):
        raise InputError(f"target: expected classes in 0 .. {k - 1}, got {sorted(set(goal.tolist()))}")
    return goal


def _margins(depth: str, classifier: nn.Module, reference: Cohort | None, k: int, device: torch.device) -> Tensor:
    """Margin to reach for each class."""
    if depth not in ("typical", "boundary"):
        raise InputError(f"depth: expected 'typical' or 'boundary', got {depth!r}")
    if depth == "boundary":
        return torch.full((k,), _BOUNDARY_MARGIN)
    if reference is None:
        return torch.full((k,), FALLBACK_MARGIN)
    return typical_margins(classifier, reference, device=device)


def _device(generator: Generative) -> torch.device:
    if isinstance(generator, nn.Module):
        return next((p.device for p in generator.parameters()), torch.device("cpu"))
    return torch.device("cpu")


def _progress(batches: list[Tensor], show: bool) -> Iterable[Tensor]:
    if not show:
        return batches
    from tqdm.auto import tqdm

    return tqdm(batches, desc="explain", unit="batch")
