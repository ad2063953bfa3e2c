"""`explain`: verified counterfactuals of images for the user's own classifier, by any of the methods."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.cohort import Cohort, Source, check_images, subjects
from cfx.core.denoiser import Generative, check_divisible
from cfx.core.errors import InputError
from cfx.counterfactual.batch import Run
from cfx.counterfactual.method import Method
from cfx.counterfactual.registry import build_method, check_generator
from cfx.counterfactual.result import Counterfactuals
from cfx.models.autoencoder import Vae
from cfx.models.doubts import Doubts
from cfx.models.goal import goals
from cfx.models.judge import Classifier, Judge
from cfx.models.running import at_rest, device_of
from cfx.runtime.shares import dealt, even, is_main, joined, together

if TYPE_CHECKING:
    from accelerate import Accelerator

Depth = Literal["typical", "boundary"]
DEPTHS = get_args(Depth)
"""The depths by name."""


def explain(
    x: Float[Tensor, "n c *space"] | Source,
    classifier: Classifier,
    generator: Generative | Vae | None,
    target: int | Int[Tensor, " n"] | None = None,
    *,
    depth: Depth = "typical",
    reference: Cohort | None = None,
    oracle: Classifier | None = None,
    method: Method | str = "minimal",
    edit: Bool[Tensor, "n 1 *space"] | None = None,
    keep: Bool[Tensor, "n 1 *space"] | None = None,
    reviewer: Generative | None = None,
    seed: int = 0,
    batch_size: int = 32,
    row: Int[Tensor, " n"] | None = None,
    progress: bool = False,
    accelerator: "Accelerator | None" = None,
) -> Counterfactuals:
    """Change each image as little as possible so that the classifier gives it to the target class.

    Args:
        x: Images `(n, c, *space)` in [-1, 1], a cohort, or any source of them.
        classifier: Any module or function from images to logits (one binary logit or k classes; for multi-label wrap
            one finding in `Finding`, for a value to reach wrap the regressor in `Near`). Used in evaluation mode; its
            state is restored.
        generator: Diffusion model of such images (`cfx.core.denoiser.Denoiser`, or anything like it). If it knows as
            many classes as the classifier, its class-conditional difference joins the guidance. Some methods take an
            autoencoder instead, or None.
        target: Class to reach, one for all or one a row; None takes the most probable class besides the predicted one.
        depth: `typical`: as sure as the classifier is of real images of the target class (the lower decile of
            their margins over `reference`; without one, p = 0.95) and a whole change; with `Near`, within half the
            tolerance. `boundary`: the least change that flips.
        reference: Labelled validation cohort that sets the typical margins; not for `Near`.
        oracle: Independent classifier that judges the result; the search never sees it.
        method: Name of a method (`cfx.counterfactual.METHODS`), or one with settings of its own.
        edit: Where the image may change; None allows it everywhere.
        keep: Where it must not change, also inside `edit`.
        reviewer: Diffusion model that re-noises and denoises the result to see whether the decision is stable; the
            generator itself if it is one. Without any, stability is not tested.
        seed: Seed of all randomness. With `row`, it fixes the result whatever the batch size or number of processes.
        batch_size: Most images worked on together; few are cut finer, so that processes have even shares.
        row: Counter of every image, integers >= 0, default 0 .. n-1.
        progress: Show a progress bar (main process only).
        accelerator: Share the batches among its processes; every process returns all rows. Batches are the same for
            any number of processes, hence so is every bit of the result but the seconds.

    Returns:
        One row an image, failures included, verified by the classifier on the final image. The evaluations it counts
        are those of the row; two answers to the first image, one with its gradient, which check the classifier once a
        call and process, belong to none.

    Raises:
        InputError: images that are not finite, not in [-1, 1] or not of the generator's shape; a classifier that fails
            on them, with non-finite logits, without gradient, or with two answers to one image; a target outside the
            classes; a reference without some class, or one for `Near`; a call inside `torch.inference_mode()`.

    Warns:
        CfxWarning: outputs that look like probabilities or like independent findings, images that are in [0, 1] or
            blank, a classifier near chance on `reference` (without one, on the labels of `x`); see
            `cfx.models.doubts`.
    """
    batches = in_turn(len(x), even(len(x), batch_size))
    share = range(len(batches)) if accelerator is None else dealt(len(batches), accelerator)
    with together(accelerator):
        parts = explain_batches(
            x, classifier, generator, target, batches=[batches[k] for k in share], depth=depth, reference=reference,
            oracle=oracle, method=method, edit=edit, keep=keep, reviewer=reviewer, seed=seed, row=row,
            progress=progress and is_main(), device=None if accelerator is None else accelerator.device,
        )  # fmt: skip
        found = list(parts)
    return Counterfactuals.cat(joined(found, Counterfactuals, len(batches), accelerator))


def explain_batches(
    x: Float[Tensor, "n c *space"] | Source,
    classifier: Classifier,
    generator: Generative | Vae | None,
    target: int | Int[Tensor, " n"] | None = None,
    *,
    batches: Sequence[Sequence[int]],
    depth: Depth = "typical",
    reference: Cohort | None = None,
    oracle: Classifier | None = None,
    method: Method | str = "minimal",
    edit: Bool[Tensor, "n 1 *space"] | None = None,
    keep: Bool[Tensor, "n 1 *space"] | None = None,
    reviewer: Generative | None = None,
    seed: int = 0,
    row: Int[Tensor, " n"] | None = None,
    progress: bool = False,
    device: torch.device | None = None,
) -> Iterator[Counterfactuals]:
    """The results of `explain`, a batch at a time, as they are done; nothing is read or kept before and after.

    Args:
        x: As in `explain`.
        classifier: As in `explain`.
        generator: As in `explain`.
        target: As in `explain`.
        batches: Positions in `x` of the images of every batch, such as `in_turn` or the shards of an atlas give them.
        depth: As in `explain`.
        reference: As in `explain`.
        oracle: As in `explain`.
        method: As in `explain`.
        edit: As in `explain`.
        keep: As in `explain`.
        reviewer: As in `explain`.
        seed: As in `explain`.
        row: As in `explain`.
        progress: Show a progress bar.
        device: Where to work; by default where the generator is, else the classifier.

    Returns:
        An iterator over the results of the batches; the arguments, and the classifier on the first image, are checked
        before the first is asked for.

    Raises:
        InputError: as `explain`; what only an image or an answer of the classifier can show, when its batch comes.
    """
    if depth not in DEPTHS:
        raise InputError(f"depth: expected 'typical' or 'boundary', got {depth!r}")
    images = Images.of(x, target, row, edit, keep)
    _check_shape(images.shape, generator)
    made = build_method(method) if isinstance(method, str) else method
    check_generator(made, generator)
    reviewer = generator if reviewer is None and isinstance(generator, Generative) else reviewer
    place = device or device_of(generator, classifier) or torch.device("cpu")
    second = None if oracle is None else Judge(oracle, "oracle", place)
    judge = Judge(classifier, device=place)

    with judge.at_rest():
        first = images.batch([0], judge)
        judge.check(first.x, first.logits)
        judge.check_labels(first.x, images.source.y, "x")
        asked = goals(judge, first.logits.shape[1], depth, reference)
    run = Run(judge, generator, reviewer, made, asked, depth, seed, place, second)
    source, n = images.source, sum(map(len, batches))
    y = judge.labels(source.y) if reference is None else None
    doubts = Doubts(judge, generator, n, y, subjects(source), place)
    return _results(images, run, batches, progress, doubts)


def in_turn(n: int, batch_size: int) -> list[range]:
    """Positions 0 .. n-1 in batches.

    Raises:
        InputError: a batch of no images.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")
    return [range(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]


@dataclass(frozen=True)
class Batch:
    """Some images with what is asked of them, on the CPU.

    Attributes:
        x: Images, float32.
        logits: What the classifier says of them.
        target: Class to reach.
        row: Their counters.
        allowed: Where each may change, or None for everywhere.
    """

    x: Float[Tensor, "n c *space"]
    logits: Float[Tensor, "n k"]
    target: Int[Tensor, " n"]
    row: Int[Tensor, " n"]
    allowed: Bool[Tensor, "n 1 *space"] | None


@dataclass(frozen=True)
class Images:
    """The images to explain with what is asked of each; nothing is read before it is asked for.

    Attributes:
        source: Where they come from.
        target: Class to reach, one for all or one a row, or None.
        row: Counter of every image.
        allowed: Where each may change, or None for everywhere.
    """

    source: Source
    target: int | Int[Tensor, " n"] | None
    row: Int[Tensor, " n"]
    allowed: Bool[Tensor, "n 1 *space"] | None

    @classmethod
    def of(
        cls, x: Tensor | Source, target: int | Tensor | None, row: Tensor | None, edit: Tensor | None,
        keep: Tensor | None,
    ) -> Self:  # fmt: skip
        """Check what can be checked without reading an image.

        Raises:
            InputError: images that are no images, or other than one target, counter or mask an image.
        """
        if isinstance(x, Tensor):
            check_images(x)
            x = Cohort(x.detach().to("cpu", torch.float32))
        n = len(x)
        if n == 0:
            raise InputError("x: expected at least one image, got none")
        row = torch.arange(n) if row is None else row.cpu()
        if row.shape != (n,):
            raise InputError(f"row: expected one counter for each of {n} images, got shape {tuple(row.shape)}")
        if isinstance(target, Tensor) and target.shape != (n,):
            raise InputError(f"target: expected one class or {n} classes, got shape {tuple(target.shape)}")
        return cls(x, target, row, _allowed((n, 1, *x.shape[1:]), edit, keep))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.source.shape

    def batch(self, rows: Sequence[int], judge: Judge) -> Batch:
        """Read some images and ask the classifier.

        Raises:
            InputError: logits that are not finite, or a target outside the classes.
        """
        at = torch.as_tensor(rows)
        x = self.source[at].x.detach().to("cpu", torch.float32)
        logits = judge.answers(x)
        bad = at[(~torch.isfinite(logits)).any(1)].tolist()
        if bad:
            raise InputError(f"classifier: expected finite logits, got NaN or infinity for rows {bad[:8]}")
        allowed = None if self.allowed is None else self.allowed[at]
        return Batch(x, logits, self._goal(at, logits), self.row[at], allowed)

    def _goal(self, at: Tensor, logits: Tensor) -> Tensor:
        """One target class a row."""
        if self.target is None:
            return logits.topk(2, dim=1).indices[:, 1]
        goal = torch.full((len(at),), self.target) if isinstance(self.target, int) else self.target.long().cpu()[at]
        if bool(((goal < 0) | (goal >= logits.shape[1])).any()):
            raise InputError(f"target: expected classes in 0 .. {logits.shape[1] - 1}, got {goal.unique().tolist()}")
        return goal


def _results(
    images: Images,
    run: Run,
    batches: Sequence[Sequence[int]],
    progress: bool,
    doubts: Doubts,
) -> Iterator[Counterfactuals]:
    """Explain batch after batch; all networks are at rest while it works, and as they were in between."""
    oracle = None if run.oracle is None else run.oracle.classifier
    for rows in _progress(batches, progress):
        with at_rest(run.judge.classifier, run.generator, run.reviewer, oracle):
            batch = images.batch(rows, run.judge)
            doubts.look(batch.x, batch.logits, torch.as_tensor(rows))
            result = run.batch(batch.x, batch.logits, batch.target, batch.row, batch.allowed)
        yield result


def _check_shape(shape: tuple[int, ...], generator: object) -> None:
    """Refuse images of another shape than the generator's, or of sizes that its levels cannot halve."""
    wanted = getattr(generator, "shape", None)
    if wanted is not None and tuple(shape) != tuple(wanted):
        raise InputError(f"x: expected images of the generator's shape {tuple(wanted)}, got {tuple(shape)}")
    check_divisible("x", tuple(shape[1:]), int(getattr(generator, "multiple", 1)))


def _allowed(expected: tuple[int, ...], edit: Tensor | None, keep: Tensor | None) -> Tensor | None:
    """Where each image may change, or None for everywhere."""
    allowed = None
    for name, mask in (("edit", edit), ("keep", keep)):
        if mask is None:
            continue
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise InputError(f"{name}: expected a boolean mask {expected}, got {mask.dtype} {tuple(mask.shape)}")
        part = mask.cpu() if name == "edit" else ~mask.cpu()
        allowed = part if allowed is None else allowed & part
    return allowed


def _progress(batches: Sequence[Sequence[int]], show: bool) -> Iterable[Sequence[int]]:
    if not show:
        return batches
    from tqdm.auto import tqdm

    return tqdm(batches, desc="explain", unit="batch")
