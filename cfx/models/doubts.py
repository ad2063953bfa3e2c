"""What is doubtful about a classifier and the images it is shown, found before anything is explained.

Nothing here changes a result. What is certainly wrong is refused elsewhere; what is probably wrong is a `CfxWarning`
that names the evidence, the likely causes and the next step. Real data must stay silent, so evidence has to be strong:

    probabilities   outputs in [0, 1] are a suspicion only. It is confirmed by the graph of operations, whose last one
                    is a sigmoid or a softmax, or by images pushed up and down the gradient: a logit soon leaves [0, 1],
                    a probability moves far and never does. Log-probabilities are right: softmax(log p) = p.
    findings        labels of several findings an image, with as many logits; or images of which all logits are well
                    below 0, beside others with a logit above. Cross-entropy leaves the sum of logits where it began,
                    about 0, because its gradient sums to 0 over classes; independent findings have no such sum.
    range           no pixel well below 0, and the generator, which knows [-1, 1], takes 2 x - 1 for likelier than x.
    pixels          labelled images that are recognised far more often when they are shown in [0, 1], or in [0, 255].
    competence      the skill on labelled images, (BA - c) / (1 - c) with balanced accuracy BA and c = 1 / k: 0 is
                    chance, 1 perfect, below 0 worse than chance (`cfx.models.competence`).
"""

import warnings
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest
from torch import Tensor

from cfx.core.cohort import spread
from cfx.core.denoiser import Generative, Latent
from cfx.core.errors import CfxWarning
from cfx.core.random import normal
from cfx.models.competence import competence_of, of_competence
from cfx.models.judge import Judge
from cfx.models.running import at_rest

_PUSHED, _PUSHES = 4, (0.1, 0.5, 2.0)  # images pushed along the gradient, and how far, in units of a pixel
_MOVED = 0.6  # span of outputs from which staying inside [0, 1] is no chance
_UNDERSHOOT = 0.05  # below 0 of images in [0, 1] that were interpolated
_ROUNDING = 1e-3  # of the sum of probabilities, in half precision
_FEW, _ABSENT = 4, -1.0  # images from which findings are told; a logit of a finding that is surely absent
_MANY = 32  # images after which their labels are looked at, unless fewer will come
_SHOWN_AGAIN, _MOSTLY = 64, 0.95  # images shown in another range, unless this share is right as it is
_NO_CHANCE = 1e-3  # p of the sign test between the two ranges
_NOISE, _STREAM = 0.9, 1 << 22  # noise level at which a generator is asked about a range
_KEPT = (
    "Squeeze", "Unsqueeze", "View", "UnsafeView", "Reshape", "ToCopy", "Clone", "Select", "Slice", "T", "Transpose",
    "Permute", "Alias", "Index", "Stack", "Cat", "Rsub", "Expand",
)  # fmt: skip
"""Operations that may stand behind the last one of a network without making it another value."""


def of_outputs(judge: Judge, x: Float[Tensor, "n c *space"], logits: Float[Tensor, "n k"]) -> str | None:
    """What to say of a classifier that returns probabilities in place of logits; None if it does not.

    Args:
        judge: The classifier, at rest.
        x: Some images.
        logits: What it says of them.
    """
    if not len(x) or not _inside(logits):
        return None
    if not _ends_in_probability(judge, x[:1]):
        pushed = _pushed(judge, x[:_PUSHED])
        both = torch.cat([_own(logits), _own(pushed)])
        if not _inside(pushed) or float(both.amax() - both.amin()) < _MOVED or _exclusive(logits) != _exclusive(pushed):
            return None
    low, high = (float(v) for v in _own(logits).aminmax())
    start = f"{judge.name}: expected logits, got values in [{low:.3g}, {high:.3g}] that look like probabilities"
    if _exclusive(logits):
        start += " (every row sums to 1)"
        key = _key(judge, "activation: softmax")
        return f"{start}; leave out the softmax, or adapt(network, output=Output(activation='softmax')){key}"
    if not _single(logits):
        key = _key(judge, "kind: multilabel, activation: sigmoid, finding: k")
        start += " of independent findings"
        return f"{start}; leave out the sigmoid, and name the one you mean: Finding(network, k){key}"
    read = float(torch.tensor(low).sigmoid())
    start += f": read as a logit, {low:.3g} is p = {read:.3f}"
    key = _key(judge, "kind: binary, activation: sigmoid")
    return f"{start}; leave out the sigmoid, or adapt(network, output=Output(activation='sigmoid')){key}"


def _key(judge: Judge, settings: str) -> str:
    """How the same is said in the YAML file of a command."""
    return f"; in a file, beside the path of {judge.name}: output: {{{settings}}}"


def _single(logits: Tensor) -> bool:
    """Whether these are of a classifier with one binary logit, which `Judge` gives a first column of zeros."""
    return logits.shape[1] == 2 and not bool(logits[:, 0].any())


def _own(logits: Tensor) -> Tensor:
    """The columns that the classifier itself returned."""
    return logits[:, 1:] if _single(logits) else logits


def _inside(logits: Tensor) -> bool:
    """Whether all outputs are probabilities."""
    own = _own(logits)
    return bool(((own >= -_ROUNDING) & (own <= 1 + _ROUNDING)).all())


def _exclusive(logits: Tensor) -> bool:
    """Whether outputs in [0, 1] are those of a softmax."""
    return not _single(logits) and bool(((logits.sum(1) - 1).abs() < _ROUNDING).all())


def _ends_in_probability(judge: Judge, x: Float[Tensor, "b c *space"]) -> bool:
    """Whether the last operation of a network is a sigmoid or a softmax."""
    with torch.enable_grad():
        node = judge.logits(x.detach().clone().requires_grad_(True)).grad_fn
    while node is not None and node.name().partition("Backward")[0] in _KEPT and node.next_functions:
        node = next((inner for inner, _ in node.next_functions if inner is not None), None)
    return node is not None and node.name().startswith(("SigmoidBackward", "SoftmaxBackward"))


def _pushed(judge: Judge, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "m k"]:
    """Outputs for images in [-1, 1] that were moved along the sign of the gradient of the largest, and the least."""
    up, down = (judge.slope(x, score).sign() for score in (lambda v: _own(v).amax(1), lambda v: -_own(v).amin(1)))
    moved = [(x + way * size * step).clamp(-1, 1) for size in _PUSHES for step in (up, down) for way in (-1, 1)]
    with torch.no_grad():
        return judge.logits(torch.cat(moved)).cpu()


def of_findings(logits: Float[Tensor, "n k"]) -> str | None:
    """What to say of logits that seem to be of independent findings, not of exclusive classes; None if nothing."""
    if logits.shape[1] < 3 or len(logits) < _FEW:
        return None
    absent, present = (logits < _ABSENT).all(1), (logits > 0).any(1)
    if absent.double().mean() < 1 / 4 or not bool(present.any()):
        return None
    return (
        f"classifier: expected {logits.shape[1]} exclusive classes, got logits that are all below {_ABSENT:g} for "
        f"{int(absent.sum())} of {len(logits)} images, as independent findings are that are all absent; wrap the one "
        "that is asked for in Finding(classifier, k); in a file, beside the path of classifier: output: {kind: "
        "multilabel, finding: k}"
    )


def of_images(x: Float[Tensor, "n c *space"]) -> str | None:
    """What to say of images that show nothing: one value in all pixels; None if there are none."""
    low, high = x.flatten(1).aminmax(dim=1)
    blank = (low == high).nonzero().flatten().tolist()
    if not blank:
        return None
    return (
        f"x: expected images, got ones of a single value in {len(blank)} of {len(x)} rows; look at how they were read"
    )


def of_pixels(
    judge: Judge, x: Float[Tensor, "n c *space"], y: Int[Tensor, " n"], logits: Float[Tensor, "n k"]
) -> str | None:
    """What to say of a classifier that recognises more images in another range of pixels; None if it does not.

    A classifier that is often wrong is shown labelled images once more, in [0, 1] and in [0, 255]. Of the images that
    only one of the two ways gets right, chance gives each way half: an exact sign test, one-sided. And that way it must
    be shown to know the classes.

    Args:
        judge: The classifier.
        x: Images in [-1, 1].
        y: Their classes; negative where not known.
        logits: What it says of them.
    """
    known = (y >= 0).nonzero().flatten()
    at = known[spread(len(known), _SHOWN_AGAIN)]
    x, y, right = x[at], y[at], (logits.argmax(1) == y)[at]
    if not len(at) or float(right.double().mean()) >= _MOSTLY:
        return None
    for high in (1, 255):
        answers = judge.answers((x + 1) * (high / 2))
        other, skill = answers.argmax(1) == y, competence_of(answers, y)
        won, lost = int((other & ~right).sum()), int((right & ~other).sum())
        better = won > lost and binomtest(won, won + lost, alternative="greater").pvalue < _NO_CHANCE
        if better and skill is not None and skill.shown:  # else it only errs in another way
            seen = f"{int(right.sum())} of {len(at)} labelled images, and about {int(other.sum())}"
            settings = f"adapt(network, pixels=Pixels(range=(0, {high}))), key pixels: {{range: [0, {high}]}}"
            return (
                f"{judge.name}: expected one of images in [-1, 1], got one that is right about {seen} when they are "
                f"shown in [0, {high}]; if it was trained on those: {settings}"
            )
    return None


@torch.no_grad()
def of_range(x: Float[Tensor, "n c *space"], generator: object, device: torch.device | None = None) -> str | None:
    """What to say of images in [0, 1] where a generator knows [-1, 1]; None if they are not.

    Args:
        x: Some images, all values below 1.
        generator: What explains them.
        device: Where it works.
    """
    low, high = (float(v) for v in x.aminmax())
    if low < -_UNDERSHOOT or not isinstance(generator, Generative) or low == high:
        return None
    with at_rest(generator):
        mine, stretched = (_surprise(generator, v[:_PUSHED].to(device or v.device)) for v in (x, 2 * x - 1))
    if not stretched < mine:
        return None
    none = "none" if low >= 0 else "hardly any"
    return (
        f"x: expected images in [-1, 1], got values in [{low:.3g}, {high:.3g}] and {none} below 0, which the generator "
        "finds unlikely; if they are in [0, 1], pass 2 * x - 1"
    )


def _surprise(generator: Generative, x: Tensor) -> float:
    """How far the one-step estimates of noised images are from them, at a high level of noise."""
    schedule, latent = generator.schedule, isinstance(generator, Latent)
    z = generator.encode(x) if isinstance(generator, Latent) else x
    t = next((t for t in range(1, schedule.T + 1) if float(schedule.sigma(t, z).max()) >= _NOISE), schedule.T)
    noise = normal(tuple(z.shape[1:]), seed=0, row=torch.arange(len(z)), stream=_STREAM).to(z)
    mean = generator(schedule.noised(z, t, noise), t).mean
    away = (generator.decode(mean) if latent else mean) - x  # type: ignore[attr-defined]
    return float(away.square().mean())


@dataclass
class Skill:
    """What is known of the skill of a classifier, as the images that it is shown come in.

    Attributes:
        n: Number of images that will come.
        y: Labels of all images; None if they are not to be looked at.
        groups: Subject of every image.
        name: What the classifier is.
    """

    n: int
    y: Int[Tensor, " n"] | None = None
    groups: Int[Tensor, " n"] | None = None
    name: str = "classifier"
    _logits: list[Tensor] = field(default_factory=list)
    _rows: list[Tensor] = field(default_factory=list)
    _enough: int = _MANY

    def seen(self, logits: Float[Tensor, "n k"], rows: Int[Tensor, " n"]) -> Float[Tensor, "m k"]:
        """Take in what is said of some more images; all that was said so far."""
        self._logits.append(logits)
        self._rows.append(rows)
        return torch.cat(self._logits)

    def doubt(self) -> str | None:
        """What to say of the images so far; rarely: who looks after every image will see bad luck some day."""
        logits, at = torch.cat(self._logits), torch.cat(self._rows)
        if len(logits) < min(self.n, self._enough):
            return None
        self._enough = 2 * len(logits)
        if self.y is None or int(self.y.max()) >= logits.shape[1]:
            return None  # labels are not those of the classifier
        groups = None if self.groups is None else self.groups[at]
        return of_competence(competence_of(logits, self.y[at], groups), "x", self.name)


@dataclass
class Doubts:
    """The doubts about one call, warned of once each, as soon as the images that came so far are evidence enough.

    Attributes:
        judge: The classifier.
        generator: What explains its decisions.
        n: Number of images that will come.
        y: Labels of all images, if they are to be looked at.
        groups: Subject of every image.
        device: Where the generator works.
    """

    judge: Judge
    generator: object
    n: int
    y: Int[Tensor, " n"] | None = None
    groups: Int[Tensor, " n"] | None = None
    device: torch.device | None = None
    _said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Nothing was seen so far."""
        self._skill = Skill(self.n, self.y, self.groups)
        self._oracle = Skill(self.n, self.y, self.groups, "oracle")

    def look_at(self, oracle: Judge, x: Float[Tensor, "n c *space"], logits: Float[Tensor, "n k"]) -> None:
        """Look at what an oracle says of some images."""
        self._say(oracle.name, of_outputs(oracle, x, logits))

    def look_at_skill(self, probs: Float[Tensor, "n k"], rows: Int[Tensor, " n"]) -> None:
        """Look at how an oracle decides some more images, and at their labels."""
        self._oracle.seen(probs, rows)
        self._say("skill of the oracle", self._oracle.doubt())

    def look(self, x: Float[Tensor, "n c *space"], logits: Float[Tensor, "n k"], rows: Int[Tensor, " n"]) -> None:
        """Look at some more images, at what the classifier says of them, and at their labels."""
        seen = self._skill.seen(logits, rows)
        if len(seen) == len(logits):  # what is true of some images is true of all
            self._say("range", of_range(x, self.generator, self.device))
            self._say("outputs", of_outputs(self.judge, x, logits))
        self._say("images", of_images(x))
        self._say("findings", of_findings(seen))
        self._say("competence", self._skill.doubt())

    def _say(self, kind: str, message: str | None) -> None:
        if message is not None and kind not in self._said:
            self._said.add(kind)
            warnings.warn(message, CfxWarning, stacklevel=2)
