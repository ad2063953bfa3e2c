"""`attribute`: where a classifier looks, by any of the methods, each map with its completeness error and a verdict."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cfx.attribution.completeness import error, verdicts
from cfx.attribution.method import Found, Method, Output, Question
from cfx.attribution.registry import build_attribution
from cfx.attribution.result import Attributions
from cfx.core.cohort import Cohort, Source, as_source
from cfx.core.errors import InputError
from cfx.counterfactual.result import Counterfactuals
from cfx.models.judge import Classifier, Judge
from cfx.models.running import ask, columns, device_of

Images = Float[Tensor, "_ _ ..."] | NDArray[Any] | Source
"""Images in [-1, 1]: a tensor or array, a cohort, or any source of them."""
Target = int | str | Sequence[int | str] | Int[Tensor, " n"] | None
"""One class for all images or one each, by number or by name; None for the predicted one."""
Baseline = str | Float[Tensor, "..."] | Counterfactuals
"""What images are compared with: a name of `BASELINES`, one image, one each, or their counterfactuals."""

BASELINES = ("zero", "black", "mean")
"""Baselines by name: 0, the middle of the range; -1, its end; the mean of the reference images."""
_LOOKED_AT = 8  # images that the classifier is shown twice


def attribute(
    f: Classifier,
    x: Images,
    target: Target = None,
    *,
    method: Method | str = "integrated-gradients",
    baseline: Baseline = "zero",
    output: Output | str = "logit",
    reference: Images | None = None,
    seed: int = 0,
    batch_size: int = 32,
    row: Sequence[int] | None = None,
    device: torch.device | None = None,
) -> Attributions:
    """Say where a classifier looks when it gives each image to a class.

    Args:
        f: Any module or function from images to logits (one binary logit or k classes). Used in evaluation mode and
            left as it was, bit for bit, also after an error.
        x: Images `(n, c, *space)` in [-1, 1], two or three axes.
        target: Class that is asked about, one for all or one each, by number or, where the classifier or the cohort has
            `classes`, by name; None for the one that the classifier predicts.
        method: Name of a method (`cfx.attribution.ATTRIBUTIONS`), or one with settings of its own.
        baseline: What images are compared with, by the methods that compare: `zero`, `black`, `mean` (of `reference`),
            an image `(c, *space)`, one each `(n, c, *space)`, or a result of `cfx.explain` for the same images.
        output: What is divided up: the `logit` of the target (with one binary logit l: l for class 1, -l for class 0),
            or its `margin` over the best other class.
        reference: Images whose mean is the baseline `mean`.
        seed: Seed of all noise.
        batch_size: Most images shown to the classifier together; changes no map but by a rounding.
        row: Number of every image, which its noise goes by; by default 0 .. n - 1.
        device: Where to work; by default where the classifier is.

    Returns:
        One row an image, none dropped. Some evaluations that check the classifier belong to none of them.

    Raises:
        InputError: images that are not finite or not in [-1, 1]; a baseline of another shape, or none where the method
            needs a counterfactual; a target that is no class; a layer that the network does not have; a classifier
            that fails, that has no gradient where one is needed, or two answers to one image.
    """
    made = _method(method)
    source, place = as_source(x, "x"), device or device_of(f) or torch.device("cpu")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size: expected a whole number from 1, got {batch_size!r}")
    if output not in ("logit", "margin"):
        raise InputError(f"output: expected 'logit' or 'margin', got {output!r}")
    if not len(source):
        raise InputError("x: expected at least one image, got none")
    judge, fill = Judge(f, "f", place), Fill(baseline, source, reference, made)
    binary, k = _looked(judge, source[: min(len(source), _LOOKED_AT)], made.gradient)
    chosen, number = _targets(target, f, source, k), _numbers(row, len(source))
    parts = []
    for rows in torch.arange(len(source)).split(batch_size):
        images = source[rows].x.to(place)
        asked = _predicted(judge, images) if chosen is None else chosen[rows].to(place)
        question = Question(
            images, asked, fill.of(images, rows), judge, number[rows].to(place), output=output, binary=binary,
            seed=seed, batch_size=batch_size,
        )  # fmt: skip
        parts.append(_answered(made, question, fill.name, output))
    return Attributions.cat(parts)


class Fill:
    """Baselines of images.

    Attributes:
        name: What they are called.

    Args:
        baseline: As in `attribute`.
        source: The images.
        reference: Images to take the mean of.
        method: The method that compares.

    Raises:
        InputError: as `attribute`.
    """

    def __init__(self, baseline: Baseline, source: Source, reference: Images | None, method: Method) -> None:
        """See the class."""
        self.value: float | Tensor = 0.0
        self.name = baseline if isinstance(baseline, str) else "images"
        if isinstance(baseline, str) and method.family == "engine":
            raise InputError(
                f"{method.name}: expected counterfactuals as baseline, a result of cfx.explain or images, got "
                f"{baseline!r}"
            )
        if isinstance(baseline, str):
            self.value = _named(baseline, reference)
        elif isinstance(baseline, Counterfactuals):
            self.name, self.value = "counterfactual", _counterfactuals(baseline, source)
        elif isinstance(baseline, Tensor):
            self.value = baseline
        else:
            raise InputError(
                f"baseline: expected one of {list(BASELINES)}, images or counterfactuals, got {baseline!r:.60}"
            )
        if isinstance(self.value, Tensor):
            _check_fill(self.value, (len(source), *source.shape))

    def of(self, x: Float[Tensor, "b c *space"], rows: Int[Tensor, " b"]) -> Float[Tensor, "b c *space"]:
        """The baselines of these rows."""
        if isinstance(self.value, float):
            return torch.full_like(x, self.value)
        per_row = self.value.ndim == x.ndim and len(self.value) > 1
        found = self.value[rows.to(self.value.device)] if per_row else self.value
        return found.to(x).expand_as(x)


def _numbers(row: Sequence[int] | None, n: int) -> Int[Tensor, " n"]:
    """Number of every image."""
    found = torch.arange(n) if row is None else torch.as_tensor(row, dtype=torch.long)
    if found.shape != (n,):
        raise InputError(f"row: expected a number for each of {n} images, got {tuple(found.shape)}")
    return found


def _method(method: object) -> Method:
    made = build_attribution(method) if isinstance(method, str) else method
    if not isinstance(made, Method) or isinstance(made, type):
        raise InputError(f"method: expected a name or one with settings, such as Occlusion(patch=4), got {made!r:.60}")
    return made


def _named(name: str, reference: Images | None) -> float | Tensor:
    """A baseline by name."""
    if name not in BASELINES:
        raise InputError(f"baseline: expected one of {list(BASELINES)}, images or counterfactuals, got {name!r}")
    if name != "mean":
        return {"zero": 0.0, "black": -1.0}[name]
    if reference is None:
        raise InputError("baseline: expected reference=... for the mean of its images, got none")
    source = as_source(reference, "reference")
    total = torch.zeros(source.shape, dtype=torch.float64)
    for rows in torch.arange(len(source)).split(256):
        total += source[rows].x.double().sum(0)
    return (total / max(1, len(source))).float()


def _counterfactuals(result: Counterfactuals, source: Source) -> Tensor:
    """The counterfactuals of the same images."""
    if len(result) != len(source) or tuple(result.x.shape[1:]) != tuple(source.shape):
        wanted, came = (len(source), *source.shape), tuple(result.x.shape)
        raise InputError(f"baseline: expected counterfactuals of x, {wanted}, got ones of {came}")
    if not torch.allclose(result.x[:1].cpu(), source[[0]].x.cpu(), atol=1e-5):
        raise InputError("baseline: expected counterfactuals of x, got ones of other images, or in another order")
    return result.x_cf


def _check_fill(value: Tensor, shape: tuple[int, ...]) -> None:
    if not value.is_floating_point() or tuple(value.shape) not in (shape, shape[1:], (1, *shape[1:])):
        raise InputError(
            f"baseline: expected floating-point images {shape} or one {shape[1:]}, got {value.dtype} "
            f"{tuple(value.shape)}"
        )
    if not bool(value.isfinite().all()):
        raise InputError("baseline: expected finite values, got NaN or infinity")


def _looked(judge: Judge, cohort: Cohort, gradient: bool) -> tuple[bool, int]:
    """Whether the classifier has one logit, and its number of classes, once it answers alike when asked again."""
    x = cohort.x.to(judge.device or cohort.x.device)
    with judge.at_rest(), torch.no_grad():
        raw = columns(ask(judge.classifier, x, name=judge.name, device=judge.device), len(x), judge.name)
        good = raw.isfinite().all(1).to(x.device)
        if bool(good.any()):
            logits = judge.check_company(x[good])
            if gradient:
                judge.check(x[good][:1], logits[:1])
    return raw.shape[1] == 1, max(2, raw.shape[1])


def _targets(target: Target, f: object, source: Source, k: int) -> Int[Tensor, " n"] | None:
    """The class asked about of every image; None for those that are predicted."""
    if target is None:
        return None
    names = [*(getattr(f, "classes", None) or source.classes or ())]
    many = target.tolist() if isinstance(target, Tensor) else target
    given = list(many) if isinstance(many, Sequence) and not isinstance(many, str) else [many] * len(source)
    odd = [t for t in given if not (t in names if isinstance(t, str) else isinstance(t, int) and 0 <= t < k)]
    if odd or len(given) != len(source):
        known = f" or of {names}" if names else ""
        what = f"one class in 0 .. {k - 1}{known}, or one for each of {len(source)} images"
        raise InputError(
            f"target: expected {what}, got {[*dict.fromkeys(odd)][:4] if odd else f'{len(given)} of them'}"
        )
    found = torch.tensor([names.index(t) if isinstance(t, str) else t for t in given])
    if int(found.max()) >= k:
        raise InputError(f"target: expected a class of the {k} that f has, got {int(found.max())}")
    return found


def _predicted(judge: Judge, x: Tensor) -> Int[Tensor, " b"]:
    with judge.at_rest(), torch.no_grad():
        return judge.logits(x).argmax(1)


def _answered(method: Method, question: Question, baseline: str, output: Output) -> Attributions:
    """The rows of one batch."""
    start = time.perf_counter()
    with question.judge.at_rest(), torch.no_grad():
        found = method.explain(question)
        whole, other = question.at_x, torch.full_like(question.at_x, torch.nan)
        if method.whole == "change":
            other = question.at_baseline
            whole = whole - other
    usable = found.map.flatten(1).isfinite().all(1) & question.at_x.isfinite()
    wrong = _wrong(method, question, found, whole)
    code, remark = verdicts(found, wrong, method.whole, usable)
    keep = usable & (found.refused == "")
    map_ = torch.where(keep.view(-1, *[1] * (found.map.ndim - 1)), found.map.detach(), 0.0)
    spent = question.spent
    bias = torch.zeros_like(whole) if found.bias is None else found.bias
    return Attributions(
        map=map_.float().cpu(), target=question.target.cpu(), value=question.at_x.float().cpu(),
        value_baseline=other.float().cpu(), bias=torch.where(keep, bias, 0.0).float().cpu(),
        completeness_error=wrong.float().cpu(), verdict=code.cpu(), remark=remark, row=question.row.cpu(),
        nfe_classifier=spent.classifier.cpu(), nfe_classifier_backward=spent.classifier_backward.cpu(),
        seconds=torch.full((len(whole),), (time.perf_counter() - start) / len(whole)), method=method.name,
        baseline=baseline, output=output,
    )  # fmt: skip


def _wrong(method: Method, question: Question, found: Found, whole: Tensor) -> Float[Tensor, " b"]:
    """The completeness error; NaN where nothing is promised."""
    if method.whole == "" or found.refused:
        return torch.full_like(whole, torch.nan)
    total = found.map.double().flatten(1).sum(1) + (0.0 if found.bias is None else found.bias.double())
    other = question.at_baseline if method.whole == "change" else torch.zeros_like(question.at_x)
    return error(total, whole.double(), question.at_x.double(), other.double()).to(whole)
