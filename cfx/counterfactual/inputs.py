"""Whether images, labelled images beside them, a classifier, its oracle and a generator speak of the same classes.

What has names is compared by name, and numbered as the columns of the classifier are; what has numbers only has to fit
how many columns there are, and where the labelled images show that columns are in another order they are refused.
"""

import warnings
from typing import cast

from jaxtyping import Float
from torch import Tensor

from cfx.core.cohort import Cohort, Source, subjects
from cfx.core.errors import CfxWarning, InputError
from cfx.data.classes import numbered_alike
from cfx.models.adapt import Adapted
from cfx.models.doubts import of_pixels
from cfx.models.goal import Answers, warn_of
from cfx.models.judge import Judge
from cfx.models.order import both_orders, exchanged_order

_ONE_FINDING = "one finding of several? output: {kind: multilabel, finding: ...} / Finding(network, k)"


def class_names(classifier: object, k: int) -> tuple[str, ...]:
    """Names of the k classes of a classifier in the order of its columns, as far as it says them; else none."""
    if isinstance(classifier, Adapted):
        own = classifier.output.classes
        return _names(own, k) if own else class_names(classifier.network, k)
    return _names(getattr(classifier, "classes", ()), k)


def _names(names: object, k: int) -> tuple[str, ...]:
    """What a classifier says, if these are names of k classes."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names) if len(set(names)) == len(names) == k else ()


def of_classifier(
    judge: Judge, k: int, source: Source, reference: Cohort | None = None
) -> tuple[Source, Cohort | None]:
    """Images and reference with the classes of a classifier: its numbers, and its names where it says them.

    Args:
        judge: The classifier.
        k: Number of its classes.
        source: Images to explain.
        reference: Labelled images beside them.

    Returns:
        Both, renumbered by name where names are in another order.

    Raises:
        InputError: a reference of other images, other names, other than k names, labels beyond the classes, or
            one-hot ones.

    Warns:
        CfxWarning: labels below 0 that hardly stand for unknown ones.
    """
    if reference is not None and tuple(reference.shape) != tuple(source.shape):
        wanted, came = tuple(source.shape), tuple(reference.shape)
        raise InputError(f"reference: expected images of the shape {wanted} of x, got {came}")
    names = class_names(judge.classifier, k)
    given: dict[str, Source] = {"x": source} | ({} if reference is None else {"reference": reference})
    of_classes = {name: one for name, one in given.items() if judge.is_about(one.y)}
    alike = numbered_alike(of_classes, names, "the classifier")
    for name, one in given.items():
        _check_one_hot(judge, name, one.y, k)
    for name, one in alike.items():
        if len(one.classes) == len(given[name].classes):  # else they are those of another, of which it is said
            _check_names(name, one, names, k)
        _check_numbers(name, one.y, k)
    found = given | alike
    return found["x"], cast(Cohort | None, found.get("reference"))  # what is in memory stays there


def _check_names(name: str, source: Source, names: tuple[str, ...], k: int) -> None:
    """Refuse other class names than the classifier's, or other than k."""
    own = tuple(source.classes)
    if own and len(own) != k:
        raise InputError(
            f"classifier: expected one column for each of the {len(own)} classes {own} of {name}, got {k}; "
            f"{_ONE_FINDING}, if the columns are independent findings"
        )
    if own and names and own != names:
        raise InputError(f"{name}: its classes are {own}, those of the classifier {names}; name them alike")


def _check_one_hot(judge: Judge, name: str, y: Tensor | None, k: int) -> None:
    """Refuse one column a class where class numbers say it; findings are columns, and a `Finding` is one of them."""
    if y is None or y.ndim != 2 or not judge.is_about(None):
        return
    if len(y) and y.shape[1] == k and bool((y.sum(1) == 1).all() and (y == y.round()).all()):
        raise InputError(
            f"{name}.y: expected class numbers ({len(y)},), got one-hot labels {tuple(y.shape)}; pass y.argmax(1)? "
            "If they are findings, wrap the one that is asked for in Finding(network, k)"
        )


def _check_numbers(name: str, y: Tensor | None, k: int) -> None:
    """Refuse labels beyond the classes; doubt those below, unless -1 marks rows beside others of every class."""
    found = [] if y is None else y.unique().tolist()
    if found and found[-1] >= k:
        raise InputError(
            f"{name}: expected labels in 0 .. {k - 1} as the classifier has, got {found[-1]}; number them as its "
            f"columns are, or leave y out; {_ONE_FINDING}"
        )
    below, known = [label for label in found if label < 0], [label for label in found if label >= 0]
    if below and known and (below != [-1] or len(known) < k):
        warnings.warn(
            f"{name}: expected labels in 0 .. {k - 1} as the classifier has, got {found[:8]}; those below 0 are taken "
            "for unknown",
            CfxWarning,
            stacklevel=2,
        )


def check_oracle(judge: Judge, oracle: Judge, x: Float[Tensor, "b c *space"], k: int, source: Source) -> None:
    """Refuse an oracle of other classes than the classifier's.

    Args:
        judge: The classifier.
        oracle: The oracle.
        x: Some images, to see how many columns the oracle has.
        k: Number of classes of the classifier.
        source: Images to explain, numbered as the classifier is.

    Raises:
        InputError: another number of classes, other names, or the same in another order.
    """
    count = oracle.answers(x).shape[1]
    if count != k:
        raise InputError(
            f"oracle: expected the {k} classes of the classifier, got {count} (one logit alone is two classes); "
            f"{_ONE_FINDING}; a value to reach: Near"
        )
    names, of = class_names(judge.classifier, k), "the classifier"
    if not names and len(source.classes) == k:
        names, of = tuple(source.classes), "x"
    own = class_names(oracle.classifier, k)
    if names and own and own != names:
        raise InputError(f"oracle: its classes are {own}, those of {of} {names}; bring them into one order")


def check_generator_names(judge: Judge, generator: object, k: int) -> None:
    """Refuse a generator of the same classes in another order; other names are other classes, which consent settles.

    Args:
        judge: The classifier.
        generator: The generator; its `names`, where it has some, are those of its labels.
        k: Number of classes of the classifier.

    Raises:
        InputError: that is so.
    """
    own, names = class_names(judge.classifier, k), generator_names(generator)
    if judge.speaks(generator, k) and own != names and set(own) == set(names):
        raise InputError(
            f"generator: its classes are {names}, those of the classifier {own}: the same in another order"
        )


def generator_names(generator: object) -> tuple[str, ...]:
    """Names of the labels of a generator; none where it does not say them."""
    return _names(getattr(generator, "names", ()), len(getattr(generator, "names", ())))


def check_order(judge: Judge, answers: Answers, reference: Cohort) -> None:
    """Refuse a classifier whose columns are in another order than the labels, unless both have names.

    Args:
        judge: The classifier, or an oracle.
        answers: What it says of the reference, and its labels.
        reference: Labelled images.

    Raises:
        InputError: that is so, see `cfx.models.order`.
    """
    logits, y = answers
    if class_names(judge.classifier, logits.shape[1]) and reference.classes:
        return
    order = exchanged_order(logits, y, subjects(reference))
    if order is None or of_pixels(judge, reference.x, y, logits) is not None:
        return
    as_is, other = (int((logits[:, list(o)].argmax(1) == y).sum()) for o in (range(len(order)), order))
    raise InputError(
        f"{judge.name}: expected columns in the order of the labels of reference, got another: "
        f"{both_orders(order, reference.classes)} ({other} of {len(y)} images are right in that order, {as_is} as it "
        f"is); put the columns in order, lambda x: network(x)[:, {list(order)}] (of one logit, -network(x)), or number "
        "the labels as they are"
    )


def doubt_oracle(judge: Judge, oracle: Judge, reference: Cohort) -> None:
    """Refuse an oracle of classes in another order, and warn of one that does not recognise those of a reference.

    Args:
        judge: The classifier, which says what the labels mean.
        oracle: The oracle, of as many classes.
        reference: Labelled images.

    Raises:
        InputError: as `check_order`.

    Warns:
        CfxWarning: it is near chance on them, or far below it.
    """
    y = judge.labels(reference.y)
    if y is None:
        return
    answers = oracle.answers(reference.x), y
    check_order(oracle, answers, reference)
    warn_of(oracle, *answers, reference)
