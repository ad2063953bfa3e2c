"""`explain`: verified counterfactuals of images for the user's own classifier, by any of the methods."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import index
from os import PathLike
from typing import TYPE_CHECKING, Literal, get_args

import torch
from numpy import ndarray
from torch import Tensor

from cfx.core.cohort import Cohort, Source, subjects
from cfx.core.denoiser import Generative, check_divisible
from cfx.core.errors import InputError
from cfx.core.gates import Gate
from cfx.core.neighbours import Neighbours
from cfx.counterfactual.batch import Run
from cfx.counterfactual.images import Counters, Images, Mask, Pixels, Target
from cfx.counterfactual.inputs import (
    check_generator_names,
    check_oracle,
    check_order,
    class_names,
    doubt_oracle,
    of_classifier,
)
from cfx.counterfactual.method import Method
from cfx.counterfactual.registry import build_method, check_generator
from cfx.counterfactual.result import Counterfactuals
from cfx.counterfactual.standing import Standing, completed, look
from cfx.models.autoencoder import Vae
from cfx.models.doubts import Doubts
from cfx.models.gate import check_gate, p_values
from cfx.models.goal import goals, recognised
from cfx.models.judge import Classifier, Judge
from cfx.models.running import at_rest, device_of
from cfx.runtime.shares import dealt, even, is_main, joined, together

if TYPE_CHECKING:
    from accelerate import Accelerator

Depth = Literal["typical", "boundary"]
DEPTHS = get_args(Depth)
"""The depths by name."""
Part = Literal["whole", "read", "attempt"]
"""Which part of an edit is returned: all of it, or what the classifier reads; or the attempt, whatever it reached."""


def explain(
    x: Pixels | Source,
    classifier: Classifier,
    generator: Generative | Vae | None,
    target: Target = None,
    *,
    depth: Depth = "typical",
    part: Part = "whole",
    reference: Source | None = None,
    oracle: Classifier | None = None,
    method: Method | str = "minimal",
    edit: Mask = None,
    keep: Mask = None,
    reviewer: Generative | None = None,
    gate: Gate | None = None,
    judge_anyway: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    row: Counters = None,
    progress: bool = False,
    accelerator: "Accelerator | None" = None,
) -> Counterfactuals:
    """Change each image as little as possible so that the classifier gives it to the target class.

    Args:
        x: Images `(n, c, *space)` in [-1, 1], a tensor or array; a cohort, or any source of them.
        classifier: Any module or function from images to logits (one binary logit or k classes; for multi-label wrap
            one finding in `Finding`, for a value to reach wrap the regressor in `Near`). Used in evaluation mode; its
            state is restored.
        generator: Diffusion model of such images (`cfx.core.denoiser.Denoiser`, or anything like it). If it knows as
            many classes as the classifier, its class-conditional difference joins the guidance. Some methods take an
            autoencoder instead, or None.
        target: Class to reach, one for all or one a row, by number or, where the cohort or the classifier has
            `classes`, by name; None takes the most probable class besides the predicted one. Where cohort and
            classifier name the same classes in different orders, the classifier's numbers hold, in the result too.
        depth: `typical`: as sure as the classifier is of real images of the target class (the lower decile of
            their margins over `reference`; without one, p = 0.95) and a whole change; with `Near`, within half the
            tolerance. `boundary`: the least change that flips.
        part: `whole`: the edit as the generator makes it, with what the classifier reads of it beside
            (`cfx.counterfactual.reading`). `read`: only that part, as much of it as reaches the margin, judged as an
            edit of its own. `attempt`: as `whole`, but what misses the margin is not cut down to what is read: for
            comparing methods by their own images.
        reference: Labelled validation cohort that sets the typical margins; not for `Near`.
        oracle: Independent classifier that judges the result; the search never sees it.
        method: Name of a method (`cfx.counterfactual.METHODS`), or one with settings of its own.
        edit: Where the image may change; None allows it everywhere.
        keep: Where it must not change, also inside `edit`.
        reviewer: Diffusion model that re-noises and denoises the result to see whether the decision is stable; the
            generator itself if it is one. Without any, stability is not tested.
        gate: What says whether an edited image is still in distribution, such as a detector fitted by `cfx.ood.fit`;
            the search never sees it.
        judge_anyway: Let the result count as judged (`Counterfactuals.judged`) although the classifier is not shown to
            know its classes, or the generator such images.
        seed: Seed of all randomness. With `row`, it fixes the result whatever the batch size or number of processes.
        batch_size: Most images worked on together; few are cut finer, so that processes have even shares.
        row: Counter of every image, integers >= 0, default 0 .. n-1.
        progress: Show a progress bar (main process only).
        accelerator: Share the batches among its processes; every process returns all rows. Batches are the same for
            any number of processes, hence so is every bit of the result but the seconds.

    Returns:
        One row an image, failures included, verified by the classifier on the final image. The evaluations it counts
        are those of the row; two answers to the first image, one with its gradient, which check the classifier once a
        call and process, what looks at the generator (`cfx.counterfactual.standing`) and what the gate evaluates belong
        to none.

    Raises:
        InputError: images that are not finite, not in [-1, 1] or not of the generator's shape; a classifier that fails
            on them, with non-finite logits, without gradient, or with two answers to one image; labels, class names, a
            reference, an oracle or a generator of other classes than the classifier's, or of the same in another order,
            by name or as the labels of the reference show; a target outside them; a reference of other
            images, without some class, or for `Near`; a gate that gives no p-values; a call inside
            `torch.inference_mode()`.

    Warns:
        CfxWarning: outputs that look like probabilities or like independent findings, images that are in [0, 1] or
            blank, labels below 0, a classifier or an oracle near chance on `reference` (without one, on the labels of
            `x`); see `cfx.models.doubts`.
    """
    if accelerator is not None and not hasattr(accelerator, "process_index"):
        raise InputError(f"accelerator: expected an Accelerator of accelerate, got {type(accelerator).__name__}")
    n, reference = _count(x), _reference(reference)
    batches = in_turn(n, even(n, _whole("batch_size", batch_size, least=1)))
    share = range(len(batches)) if accelerator is None else dealt(len(batches), accelerator)
    with together(accelerator):
        parts = explain_batches(
            x, classifier, generator, target, batches=[batches[k] for k in share], depth=depth, part=part,
            reference=reference, oracle=oracle, method=method, edit=edit, keep=keep, reviewer=reviewer,
            gate=gate, judge_anyway=judge_anyway, seed=seed, row=row, progress=progress and is_main(),
            device=None if accelerator is None else accelerator.device,
        )  # fmt: skip
        found = list(parts)
    known = joined([part.cohort for part in found if part.cohort is not None], Cohort, len(batches), accelerator)
    results = joined(found, Counterfactuals, len(batches), accelerator)
    whole = Counterfactuals.cat([r.of_cohort(cohort) for r, cohort in zip(results, known, strict=True)])
    first = results[0].standing  # every process looked at images of its own
    return _with_all_rows(whole.replace(standing=first), Judge(classifier), reference)


def _with_all_rows(result: Counterfactuals, judge: Judge, reference: Cohort | None) -> Counterfactuals:
    """The result of all rows, whose standing they complete."""
    real = None if reference is None else Neighbours.of(reference)
    strayed = None if real is None else real.strayed(result.x, result.x_cf)
    y, of = (None, None) if result.cohort is None else (judge.labels(result.cohort.y), subjects(result.cohort))
    found = Standing.of(result.standing)
    known = completed(found, result.probs_before, result.consent, y, of, reading=result.reading, strayed=strayed)
    return result.replace(standing=known.told())


def explain_batches(
    x: Pixels | Source,
    classifier: Classifier,
    generator: Generative | Vae | None,
    target: Target = None,
    *,
    batches: Sequence[Sequence[int]],
    depth: Depth = "typical",
    part: Part = "whole",
    reference: Source | None = None,
    oracle: Classifier | None = None,
    method: Method | str = "minimal",
    edit: Mask = None,
    keep: Mask = None,
    reviewer: Generative | None = None,
    gate: Gate | None = None,
    judge_anyway: bool = False,
    standing: Standing | None = None,
    seed: int = 0,
    row: Counters = None,
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
        part: As in `explain`.
        reference: As in `explain`.
        oracle: As in `explain`.
        method: As in `explain`.
        edit: As in `explain`.
        keep: As in `explain`.
        reviewer: As in `explain`.
        gate: As in `explain`.
        judge_anyway: As in `explain`.
        standing: What is known of the networks, where somebody looked before; otherwise it is found out before the
            first batch. The rows of a part do not complete it.
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
    _check_words(depth, part)
    _check_networks(classifier=classifier, oracle=oracle, generator=generator, reviewer=reviewer)
    if gate is not None:
        check_gate(gate)
    seed, reference = _whole("seed", seed, least=0), _reference(reference)
    images = Images.of(x, None, row, edit, keep)
    _check_shape(images.shape, generator)
    made = _method(method, generator)
    reviewer = generator if reviewer is None and isinstance(generator, Generative) else reviewer
    place = device or device_of(generator, classifier) or torch.device("cpu")
    second = None if oracle is None else Judge(oracle, "oracle", place)
    judge = Judge(classifier, device=place)

    with judge.at_rest():
        first = images.batch([0], judge)
        judge.check(first.x, first.logits)
        judge.check_labels(first.x, images.source.y, "x")
        source, reference = of_classifier(judge, k := first.logits.shape[1], images.source, reference)
        images = Images.of(source, target, images.row, edit, keep, class_names(classifier, k))
        images.goal(torch.arange(1), first.logits)
        if second is not None:
            check_oracle(judge, second, first.x, k, source)
        check_generator_names(judge, generator, k)
        answers = recognised(judge, reference)
        if answers is not None and reference is not None:
            check_order(judge, answers, reference)
        asked = goals(judge, k, depth, reference, answers)
        if second is not None and reference is not None:
            doubt_oracle(judge, second, reference)
        if gate is not None:
            p_values(gate, first.x, device=place)
    run = Run(judge, generator, reviewer, made, asked, depth, seed, place, second, part, gate)
    n = _rows_of(batches, len(source))
    y = judge.labels(source.y) if reference is None else None
    doubts = Doubts(judge, generator, n, y, subjects(source), place)
    known = standing or partial(look, judge, generator, source, reference, answers, anyway=judge_anyway, device=place)
    return _results(images, run, batches, progress, doubts, known)


def _check_words(depth: object, part: object) -> None:
    """Refuse another depth or part than there are."""
    if depth not in DEPTHS:
        raise InputError(f"depth: expected 'typical' or 'boundary', got {depth!r}")
    if part not in get_args(Part):
        raise InputError(f"part: expected one of {list(get_args(Part))}, got {part!r}")


def in_turn(n: int, batch_size: int) -> list[range]:
    """Positions 0 .. n-1 in batches.

    Raises:
        InputError: a batch of no images.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")
    return [range(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]


def _results(
    images: Images,
    run: Run,
    batches: Sequence[Sequence[int]],
    progress: bool,
    doubts: Doubts,
    standing: Standing | Callable[..., Standing],
) -> Iterator[Counterfactuals]:
    """Explain batch after batch; all networks are at rest while it works, and as they were in between."""
    oracle = None if run.oracle is None else run.oracle.classifier
    for rows in _progress(batches, progress):
        with at_rest(run.judge.classifier, run.generator, run.reviewer, oracle):
            batch = images.batch(rows, run.judge)
            if rows is batches[0]:
                run.judge.check_company(batch.x, batch.logits)
                if run.oracle is not None:
                    some = run.oracle.check_company(batch.x)
                    doubts.look_at(run.oracle, batch.x[: len(some)], some)
                known = standing if isinstance(standing, Standing) else standing(x=batch.x, rows=rows)
            doubts.look(batch.x, batch.logits, torch.as_tensor(rows))
            result = run.batch(batch.x, batch.logits, batch.target, batch.row, batch.allowed)
            if result.oracle_probs_before is not None:
                doubts.look_at_skill(result.oracle_probs_before, torch.as_tensor(rows))
        yield result.of_cohort(batch.cohort).replace(standing=known.told())


def _rows_of(batches: object, n: int) -> int:
    """Number of images in batches.

    Raises:
        InputError: no sequence of batches of positions, a batch of none, or a position beyond the last image.
    """
    try:
        rows = [[index(i) for i in some] for some in batches]  # type: ignore[attr-defined]
    except TypeError as error:
        raise InputError(f"batches: expected a list of lists of positions, got {batches!r:.60}") from error
    odd = [i for some in rows for i in some if not 0 <= i < n]
    if odd or not all(rows):
        came = odd[:8] if odd else "an empty batch"
        raise InputError(f"batches: expected positions in 0 .. {n - 1}, at least one a batch, got {came}")
    return sum(map(len, rows))


def _count(x: object) -> int:
    """Number of images; of what is none, which is refused later by what it is, 0."""
    if isinstance(x, Tensor | ndarray):
        return 0 if getattr(x, "is_nested", False) or not x.ndim else len(x)
    return len(x) if isinstance(x, Source) else 0


def _whole(name: str, value: object, least: int) -> int:
    """A number that has to be whole.

    Raises:
        InputError: it is not, or below the least.
    """
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(f"{name}: expected an integer, got {value!r:.60}") from error
    if number < least:
        wanted = "an integer in [0, 2**64)" if name == "seed" else f"at least {least}"
        raise InputError(f"{name}: expected {wanted}, got {number}")
    return number


def _check_networks(**networks: object) -> None:
    """Refuse what is no network at all.

    Raises:
        InputError: a path, a class, or what cannot be called.
    """
    for name, network in networks.items():
        if isinstance(network, str | PathLike):
            role = "generator" if name == "reviewer" else name
            call = f"cfx.models.open_network({str(network)!r}, {role!r})"
            raise InputError(f"{name}: expected a network, got the path {str(network)!r}; open it with {call}")
        if isinstance(network, type):
            raise InputError(f"{name}: expected a network, got the class {network.__name__}; build one")
        if name in ("classifier", "oracle") and not callable(network) and (name, network) != ("oracle", None):
            raise InputError(f"{name}: expected a network or a function of images, got {type(network).__name__}")
        if name == "reviewer" and network is not None and not isinstance(network, Generative):
            raise InputError(f"{name}: expected a diffusion model, got {type(network).__name__}")


def _method(method: Method | str, generator: object) -> Method:
    """A method, for which the generator is of the right kind.

    Raises:
        InputError: no method, or one that needs another generator.
    """
    made = build_method(method) if isinstance(method, str) else method
    if not isinstance(made, Method) or isinstance(made, type):
        raise InputError(f"method: expected a name or a method with settings, such as Minimal(), got {method!r:.60}")
    check_generator(made, generator)
    return made


def _reference(reference: object) -> Cohort | None:
    """A reference in memory.

    Raises:
        InputError: no cohort and no source of one.
    """
    if reference is None or isinstance(reference, Cohort):
        return reference
    if not isinstance(reference, Source):
        came = type(reference).__name__
        raise InputError(f"reference: expected labelled images, Cohort(x, y=labels), got {came}")
    return reference[torch.arange(len(reference))]


def _check_shape(shape: tuple[int, ...], generator: object) -> None:
    """Refuse images of another shape than the generator's, or of sizes that its levels cannot halve."""
    wanted = getattr(generator, "shape", None)
    if wanted is not None and tuple(shape) != tuple(wanted):
        raise InputError(f"x: expected images of the generator's shape {tuple(wanted)}, got {tuple(shape)}")
    check_divisible("x", tuple(shape[1:]), int(getattr(generator, "multiple", 1)))


def _progress(batches: Sequence[Sequence[int]], show: bool) -> Iterable[Sequence[int]]:
    if not show:
        return batches
    from tqdm.auto import tqdm

    return tqdm(batches, desc="explain", unit="batch")
