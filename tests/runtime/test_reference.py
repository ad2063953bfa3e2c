"""The list of keys says what pydantic checks: every key, once, where YAML has it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from cfx.runtime.config import Frozen
from cfx.runtime.reference import reference


class Tag(Frozen):
    """A planted tag.

    Further paragraphs are for those who read the code.
    """

    kind: Literal["tag"]
    """Which object."""
    strength: float = Field(default=1, ge=0, lt=2)
    """How strong."""


class Shape(Frozen):
    """A planted shape."""

    kind: Literal["shape"]
    """Which object."""
    waves: int | None = None
    """Number of waves; None draws it."""


Planted = Annotated[Tag | Shape, Field(discriminator="kind")]


class Optimizer(Frozen):
    """How it learns."""

    lr: float = Field(default=1e-6, gt=0)
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decays."""


class Run(Frozen):
    """Everything that a run is: a sentence long enough that it has to be broken somewhere, because a line ends after so
    many letters as a page has.
    """

    optimizer: Optimizer = Field(default_factory=Optimizer)
    """How it learns."""
    planted: tuple[Planted, ...] = ()
    """What is planted."""
    other: Planted | None = None
    """One more."""
    named: Mapping[str, Planted] = Field(default_factory=dict)
    """By name."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision."""
    label: Literal["a"] | int = "a"
    """The class."""
    settings: Mapping[str, Any] = Field(default_factory=lambda: {"steps": 3})
    """Passed on."""
    sizes: tuple[int, ...]
    """Sizes."""


EXPECTED = """\
## cfx run

Everything that a run is: a sentence long enough that it has to be broken somewhere, because a line ends after so many
letters as a page has.

- `optimizer` (mapping; by default those below): How it learns.
  - `lr` (number > 0; default `1.0e-06`): Learning rate.
  - `betas` ([number, number]; default `[0.9, 0.99]`): Decays.
- `planted` (list of mapping; default `[]`): What is planted.
  - `kind: tag`: A planted tag.
    - `strength` (number >= 0, < 2; default `1`): How strong.
  - `kind: shape`: A planted shape.
    - `waves` (integer or null; default `null`): Number of waves; `null` draws it.
- `other` (mapping or null; default `null`): One more.
  - keys as for `planted` of `cfx run`
- `named` (mapping of names to mapping; default `{}`): By name.
  - keys as for `planted` of `cfx run`
- `precision` (`'no'` or `bf16`; default `'no'`): Mixed precision.
- `label` (`a` or integer; default `a`): The class.
- `settings` (mapping; default `{steps: 3}`): Passed on.
- `sizes` (list of integer; required): Sizes.
"""


def test_the_list_of_a_configuration():
    assert reference(Run, "cfx run") == EXPECTED


def test_defaults_are_shown_as_yaml_reads_them():
    """`no` without quotes would be false, and `1e-06` text."""
    assert yaml.safe_load("[1.0e-06, 'no', {steps: 3}]") == [1e-6, "no", {"steps": 3}]


def test_what_was_listed_before_is_referred_to():
    class Whole(Frozen):
        """Several runs."""

        run: Run
        """One of them."""
        optimizer: Optimizer
        """Another."""

    seen: dict[str, str] = {}
    reference(Run, "cfx run", seen)
    assert reference(Whole, "cfx whole", seen).splitlines()[4:] == [
        "- `run` (mapping; required): One of them.",
        "  - keys as for `cfx run`",
        "- `optimizer` (mapping; required): Another.",
        "  - keys as for `optimizer` of `cfx run`",
    ]
    assert "`lr`" in reference(Whole, "cfx whole")


def test_keys_that_are_free():
    class Network(Frozen, extra="allow"):
        """A name, and whatever that network takes."""

        name: str
        """Its name."""

    class Holder(Frozen):
        """Holds it."""

        network: Network
        """The network."""

    assert reference(Holder, "x").splitlines()[4:] == [
        "- `network` (mapping; required): The network.",
        "  - `name` (text; required): Its name.",
        "  - any other key: A name, and whatever that network takes.",
    ]
