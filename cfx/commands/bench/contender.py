"""One method of a comparison: with published settings or those that tuning chose, and with or without labels."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from cfx.core.denoiser import Generative, Latent, Posterior
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule, Time
from cfx.counterfactual import Method, build_method
from cfx.models.opening import Network
from cfx.runtime.config import Frozen

Settings = Mapping[str, Any]


class Candidate(Frozen):
    """A method and what it generates with."""

    method: str
    """Name in `cfx.counterfactual.registry.METHODS`."""
    label: str = Field(default="", pattern=r"^[\w.+-]*$")
    """What its rows are called; the method's name by default. For one method with several settings."""
    generator: Network | None = None
    """What to generate with instead of the bench's own."""
    labels: bool = True
    """Whether the generator's class labels may be used; without them its rows are called `-unlabelled`."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the method that differ from its defaults."""
    rows: int | None = Field(default=None, ge=1)
    """Explain this many of the first images only, where a method is too slow for all of them."""

    @property
    def key(self) -> str:
        """Its name apart from what it is tuned to."""
        return self.label or self.method + ("" if self.labels else "-unlabelled")

    def build(self, settings: Settings | None = None) -> Method:
        """The method with these settings, or its own; lists, which is all that YAML has, become tuples."""
        given = self.settings if settings is None else settings
        return build_method(self.method, **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


class Contender(Candidate):
    """One method of the comparison."""

    tuned: bool = False
    """Take the settings that tuning chose for this method; its rows are called `-tuned`."""
    reversible: bool = False
    """Also measure `reversibility`, for which every counterfactual is explained back, and `composition`."""

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.tuned and self.settings:
            raise ValueError("settings: expected none beside `tuned`, which takes those that tuning chose")
        return self

    @property
    def name(self) -> str:
        """What its rows are called."""
        return self.key + ("-tuned" if self.tuned else "")


def start_sigma(method: Method, generator: object) -> float | None:
    """The noise level that a method starts from; None for one that adds no noise."""
    if not isinstance(generator, Generative):
        return None
    guide = getattr(method, "guide", method)  # a morph is guided by a replay
    if hasattr(guide, "times"):
        return math.sqrt(1 - generator.schedule.alpha_squared(guide.times(generator)[0]))
    found: float | None = getattr(method, "start_sigma", None)
    return found


class Unlabelled(nn.Module):
    """A generator that nobody can ask for a class: what a method does with one that knows none.

    Args:
        generator: The generator.
    """

    classes = None

    def __init__(self, generator: Generative) -> None:
        """See the class."""
        super().__init__()
        self.generator = generator

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return self.generator.schedule

    def forward(self, x_t: Float[Tensor, "b c *space"], t: Time, label: Int[Tensor, " b"] | None = None) -> Posterior:
        """The posterior without a label."""
        return self.generator(x_t, t)


class UnlabelledLatent(Unlabelled):
    """The same of a latent generator."""

    generator: Latent

    def encode(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b z *coarse"]:
        """The code of images."""
        return self.generator.encode(x)

    def decode(self, z: Float[Tensor, "b z *coarse"]) -> Float[Tensor, "b c *space"]:
        """The images of codes."""
        return self.generator.decode(z)


def unlabelled(generator: Generative) -> Unlabelled:
    """A generator without its labels."""
    return UnlabelledLatent(generator) if isinstance(generator, Latent) else Unlabelled(generator)


class Choices(Frozen):
    """What tuning chose, frozen: the hash is that of everything else."""

    rule: str
    """How was chosen."""
    images: tuple[str, ...]
    """On which images."""
    chosen: Mapping[str, Mapping[str, Any]]
    """By key of a method: `settings`, and what they reached there with how many images."""
    tried: Mapping[str, tuple[Mapping[str, Any], ...]] = Field(default_factory=dict)
    """By key of a method: the same of every configuration."""
    hash: str = ""
    """SHA-256 of the above as canonical JSON."""

    @property
    def digest(self) -> str:
        """What `hash` has to be."""
        values = self.model_dump(mode="json", exclude={"hash"})
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def frozen(self) -> str:
        """The file's text, with its hash."""
        return self.model_copy(update={"hash": self.digest}).model_dump_json(indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Choices":
        """What a file says.

        Raises:
            InputError: no such file, another kind of file, or one that was changed after it was written.
        """
        try:
            found = cls.model_validate_json(path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"tuning: expected a file that `cfx bench tuning` wrote, got {path}: {error}") from error
        if found.hash != found.digest:
            raise InputError(f"tuning: expected {path} as it was written (hash {found.hash:.12}), got a changed file")
        return found

    def settings(self, key: str) -> Settings:
        """What was chosen for a method.

        Raises:
            InputError: it was not tuned.
        """
        if key not in self.chosen:
            raise InputError(f"methods: expected a tuned one, one of {list(self.chosen)}, got {key!r}")
        found: Settings = self.chosen[key]["settings"]
        return found
