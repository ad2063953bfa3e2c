"""What a training run is: frozen, complete, and the same object from YAML, the command line and Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cfx.data import DataConfig
from cfx.runtime.config import Frozen, RunConfig, check, read_as


class NetworkConfig(BaseModel):
    """A registry name and that network's own keywords (the spatial dims and channels come from the data)."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str
    """Registry name, see `cfx.models.BUILDERS`."""

    @property
    def keywords(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class DiffusionConfig(Frozen):
    """Denoising: predict noise, velocity or image from a noised image."""

    kind: Literal["diffusion"]
    """Which objective this is."""
    prediction: Literal["epsilon", "v", "x0"] = "v"
    """What the network returns."""
    min_snr: float | None = Field(default=5.0, gt=0)
    """Clip of the min-SNR weighting (Hang et al., 2023); None weighs all levels alike in prediction space."""
    classes: int | None = Field(default=None, ge=1)
    """Number of class labels to condition on; None trains without labels."""
    label_dropout: float = Field(default=0.1, ge=0, le=1)
    """Probability that a row's label is replaced by the null label."""
    schedule: Mapping[str, Any] = Field(
        default_factory=lambda: {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
    )
    """A diffusers scheduler configuration (betas, spacing); the prediction type is set from `prediction`."""


class VaeConfig(Frozen):
    """Variational autoencoding: absolute error, KL, and on request perceptual and adversarial terms."""

    kind: Literal["vae"]
    """Which objective this is."""
    kl_weight: float = Field(default=1e-6, ge=0)
    """Weight of the KL divergence in nats a row, relative to the absolute error summed over pixels."""
    perceptual: str | None = None
    """Folder of a classifier checkpoint whose features measure the perceptual term; None for no such term."""
    perceptual_weight: float = Field(default=1.0, ge=0)
    """Weight of the perceptual term, relative to the mean absolute error of a pixel."""
    adversarial_weight: float = Field(default=0.0, ge=0)
    """Weight of the patch discriminator's verdict, relative to the mean absolute error; 0 builds no discriminator."""
    adversarial_start: int = Field(default=0, ge=0)
    """First step at which the autoencoder feels the discriminator."""


class ReweighConfig(Frozen):
    """Rows weighted so that class and confounder are independent."""

    kind: Literal["reweigh"]
    """Which remedy this is."""
    confounder: str
    """Name of the covariate; one of many values is cut into fifths."""


class ReversalConfig(Frozen):
    """The features must not tell the confounder: gradient reversal, on all rows."""

    kind: Literal["reversal"]
    """Which remedy this is."""
    confounder: str
    """Name of the covariate; one of many values is cut into fifths."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the adversary's cross-entropy at the end; it rises from 0."""


class AdversarialConfig(Frozen):
    """Nothing read from the features may correlate with the confounder within a class."""

    kind: Literal["adversarial"]
    """Which remedy this is."""
    confounder: str
    """Name of the covariate."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the squared correlation, relative to the cross-entropy."""


class ShapeSwapConfig(Frozen):
    """Every image takes the brain shape of another row, of a class drawn at random; needs masks."""

    kind: Literal["shape-swap"]
    """Which remedy this is."""


RemedyConfig = Annotated[
    ReweighConfig | ReversalConfig | AdversarialConfig | ShapeSwapConfig, Field(discriminator="kind")
]
"""How a classifier is kept from using a confounder."""


class ClassifierConfig(Frozen):
    """Classification, with one logit, K logits or K independent labels."""

    kind: Literal["classifier"]
    """Which objective this is."""
    multilabel: bool = False
    """Whether every row has K independent 0/1 labels."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread evenly over classes."""
    one_logit: bool = False
    """Whether two classes are told apart by one logit instead of two."""
    flip: bool = False
    """Augmentation: mirror half of the images along the last axis."""
    shift: int = Field(default=0, ge=0)
    """Augmentation: largest shift in pixels along every axis (edge values are repeated)."""
    noise: float = Field(default=0.0, ge=0)
    """Augmentation: largest standard deviation of added normal noise; each row draws its own."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Augmentation: largest relative change of contrast; each row draws its own factor."""
    remedy: RemedyConfig | None = None
    """What keeps it from using a confounder; None for plain training."""


ObjectiveConfig = Annotated[DiffusionConfig | VaeConfig | ClassifierConfig, Field(discriminator="kind")]


class OptimizerConfig(Frozen):
    """AdamW and its learning rate over time."""

    lr: float = Field(default=3e-4, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the moment estimates."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    warmup: int = Field(default=100, ge=0)
    """Steps of linear warm-up."""
    cosine: bool = True
    """Whether the rate falls to zero along a cosine until the last step."""
    class_lr: float = Field(default=10.0, gt=0)
    """Factor on the rate of class embeddings, which see few gradients and learn slowly otherwise."""


class TrainConfig(RunConfig):
    """One training run; its name is that of the checkpoint, its folder holds state, logs and the checkpoint."""

    card: str = ""
    """Opening text of the model card: intended use, data, limits."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    data: DataConfig | None = None
    """Training cohort; None only where the Python caller hands one over."""
    validation: DataConfig | float = Field(default=0.1)
    """Held-out cohort, or the share of the training cohort to hold out."""
    network: NetworkConfig
    """The network to train."""
    init: str | None = None
    """Checkpoint folder whose weights the network starts from; None draws them at random."""
    objective: ObjectiveConfig
    """What the network learns."""
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    """How it learns."""
    batch_size: int = Field(default=32, ge=1)
    """Rows a step, over all processes and accumulated parts."""
    steps: int = Field(ge=1)
    """Optimizer steps."""
    accumulate: int = Field(default=1, ge=1)
    """Parts in which each process handles its share of a batch; results do not depend on it."""
    clip: float | None = Field(default=1.0, gt=0)
    """Largest gradient norm; None does not clip."""
    ema: float | None = Field(default=0.9999, gt=0, lt=1)
    """Largest decay of the averaged weights (with warm-up); None keeps the last weights."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    save_every: int = Field(default=500, ge=1)
    """Steps between saved states."""
    log_every: int = Field(default=50, ge=1)
    """Steps between log lines."""
    trackers: tuple[str, ...] = ()
    """Accelerate trackers besides the run's own `log.jsonl` (`tensorboard`, `wandb`, ... where installed)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Values that no single field can check."""
        if isinstance(self.validation, float) and not 0 <= self.validation < 1:
            raise ValueError(f"validation: expected a share in [0, 1), got {self.validation}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size: expected a multiple of accumulate={self.accumulate}, got {self.batch_size}")
        return self

    def dump(self) -> dict[str, Any]:
        """Plain values, ready for YAML or JSON."""
        return self.model_dump(mode="json")


def read_config(path: str | Path, overrides: Mapping[str, str] | None = None) -> TrainConfig:
    """Read the YAML file of a training run, with dotted overrides on top; errors as `read_as`."""
    return read_as(TrainConfig, path, overrides)


def check_config(values: Mapping[str, Any], source: str = "values") -> TrainConfig:
    """A `TrainConfig` of plain values.

    Raises:
        InputError: naming every offending dotted key of `source`.
    """
    return check(TrainConfig, values, source)
