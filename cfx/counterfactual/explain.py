"""`explain`: verified counterfactuals of images for the user's own classifier, by any of the methods."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cfx.core.cohort import Cohort, check_images
from cfx.core.denoiser import Generative
from cfx.core.errors import InputError
from cfx.counterfactual.batch import Run
from cfx.counterfactual.method import Method
from cfx.counterfactual.registry import build_method
from cfx.counterfactual.result import Counterfactuals
from cfx.models.autoencoder import Vae
from cfx.models.judge import Judge, Near, at_rest, typical_margins

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

Depth = Literal["typical", "boundary"]
FALLBACK_MARGIN = 2.944
"""Margin asked for at depth `typical` without a reference cohort: log-odds of p = 0.95."""
_BOUNDARY_MARGIN = 1e-3


def explain(
    x: Float[Tensor, "n c *space"] | Cohort,
    classifier: nn.Module,
    generator: Generative | Vae | None,
    target: int | Int[Tensor, " n"] | None = None,
    *,
    depth: Depth = "typical",
    reference: Cohort | None = None,
    oracle: nn.Module | None = None,
    method: Method | str = "minimal",
    edit: Bool[Tensor, "n 1 *space"] | None = None,
    keep: Bool[Tensor, "n 1 *space"] | None = None,
    reviewer: Generative | None = None,
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
            in `Finding`, for a value to reach wrap the regressor in `Near`). Used in evaluation mode; its state is
            restored.
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
            non-finite logits or without gradient; a target outside the classes; a reference without some class, or
            one for `Near`.
    """
    images, row = _inputs(x, row)
    allowed = _allowed(images, edit, keep)
    method = build_method(method) if isinstance(method, str) else method
    reviewer = generator if reviewer is None and isinstance(generator, Generative) else reviewer
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")
    device = _device(generator, classifier) if accelerator is None else accelerator.device
    mine = _share(len(images), accelerator)
    judge = Judge(classifier)
    second = None if oracle is None else Judge(oracle, "oracle")
    with judge.at_rest(), at_rest(generator), at_rest(reviewer), at_rest(oracle):
        logits = _first_look(judge, generator, images, mine, device, accelerator)
        goal = _targets(target, logits)
        margins = _margins(depth, classifier, reference, logits.shape[1], device)
        run = Run(judge, generator, reviewer, method, margins, depth, seed, device, second)
        parts = []
        show = progress and (accelerator is None or accelerator.is_main_process)
        for rows in _progress([r for r in mine.split(batch_size) if len(r)], show):
            parts.append(run.batch(images[rows], logits[rows], goal[rows], row[rows], _rows_of(allowed, rows)))
            if on_batch is not None:
                on_batch(parts[-1])
    return Counterfactuals.cat(_join(parts, accelerator))


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


def _allowed(x: Tensor, edit: Tensor | None, keep: Tensor | None) -> Tensor | None:
    """Where each image may change, or None for everywhere."""
    allowed = None
    for name, mask in (("edit", edit), ("keep", keep)):
        if mask is None:
            continue
        expected = (len(x), 1, *x.shape[2:])
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise InputError(f"{name}: expected a boolean mask {expected}, got {mask.dtype} {tuple(mask.shape)}")
        part = mask.cpu() if name == "edit" else ~mask.cpu()
        allowed = part if allowed is None else allowed & part
    return allowed


def _rows_of(mask: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if mask is None else mask[rows]


def _share(n: int, accelerator: "Accelerator | None") -> Tensor:
    """Which images this process works on."""
    if accelerator is None:
        return torch.arange(n)
    from cfx.runtime.processes import my_rows

    return torch.tensor(list(my_rows(n, accelerator)), dtype=torch.long)


def _join(parts: list[T], accelerator: "Accelerator | None") -> list[T]:
    """The parts of all processes, in the order of their images."""
    if accelerator is None:
        return parts
    from cfx.runtime.processes import gather_rows

    return [part for some in gather_rows(parts, accelerator) for part in some]


@torch.no_grad()
def _first_look(
    judge: Judge,
    generator: object,
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
        return torch.full((k,), Near.TYPICAL if isinstance(classifier, Near) else FALLBACK_MARGIN)
    return typical_margins(classifier, reference, device=device)


def _device(*modules: object) -> torch.device:
    """The device of the first module that has parameters."""
    parameters = (p for m in modules if isinstance(m, nn.Module) for p in m.parameters())
    return next((p.device for p in parameters), torch.device("cpu"))


def _progress(batches: list[Tensor], show: bool) -> Iterable[Tensor]:
    if not show:
        return batches
    from tqdm.auto import tqdm

    return tqdm(batches, desc="explain", unit="batch")
