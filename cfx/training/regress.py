"""Training of regressors: the values of covariates from images, by least squares on standardised values."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from cfx.core.cohort import Source
from cfx.core.errors import InputError
from cfx.models import build
from cfx.models.regressor import Regressor
from cfx.training.augment import AugmentConfig, augment
from cfx.training.losses import squared_error
from cfx.training.objectives import Batch, NetworkConfig, Networks, Scores, data_keywords, whole_batches


class RegressorConfig(AugmentConfig):
    """Regression of covariates."""

    trains: ClassVar[str] = "regressor"

    kind: Literal["regressor"]
    """Which objective this is."""
    targets: tuple[str, ...] = Field(min_length=1)
    """Names of the covariates to predict."""

    def target(self, cohort: Source) -> Float[Tensor, "n k"]:
        """The covariates, one column each.

        Raises:
            InputError: no covariate of such a name, or one with missing values.
        """
        missing = sorted(set(self.targets) - set(cohort.covariates))
        if missing:
            raise InputError(f"targets: expected covariates among {sorted(cohort.covariates)}, got {missing}")
        values = torch.stack([cohort.covariates[name].float() for name in self.targets], 1)
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"targets: expected a value of {list(self.targets)} in every row, got missing ones")
        return values

    def make(self, network: NetworkConfig, cohort: Source, steps: int) -> "RegressorObjective":
        """Regression on the cohort's covariates.

        Raises:
            InputError: as `target`, or a covariate that never changes.
        """
        return RegressorObjective(self, network, cohort)


class RegressorObjective:
    """Squared error of values that are standardised by their mean and deviation in training."""

    def __init__(self, config: RegressorConfig, network: NetworkConfig, cohort: Source) -> None:
        """Standardise."""
        self.config, self.name, self.shape = config, network.name, cohort.shape
        values = config.target(cohort)
        self.mean, self.std = values.mean(0), values.std(0, correction=0)
        if not bool((self.std > 0).all()):
            raise InputError(f"targets: expected values that vary, got deviations {self.std.tolist()}")
        self.network_config = data_keywords(network, self.shape) | {"out_channels": len(config.targets)}

    def players(self) -> dict[str, nn.Module]:
        """The network of standardised values."""
        return {"main": build(self.name, **self.network_config)}

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Mean squared error of the standardised values of augmented images."""
        assert batch.y is not None
        wanted = (batch.y - self.mean.to(batch.y)) / self.std.to(batch.y)
        return squared_error(networks[player](augment(self.config, batch)), wanted).mean(), {}

    @torch.no_grad()
    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Mean absolute error of each target in its units, and the share of its variance that is explained."""
        model, y = self._model(network), self.config.target(cohort)
        batches = whole_batches(self.config, network, cohort, seed)
        gap = torch.cat([model(batch.x).cpu() for batch in batches]) - y
        explained = 1 - gap.square().mean(0) / y.var(0, correction=0)
        figures: dict[str, float] = {}
        for k, name in enumerate(self.config.targets):
            figures |= {f"{name}_mae": float(gap[:, k].abs().mean()), f"{name}_r2": float(explained[k])}
        return figures

    def _model(self, network: nn.Module) -> Regressor:
        model = Regressor(network, self.config.targets, self.mean.tolist(), self.std.tolist())
        return model.to(next(network.parameters()).device)

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The regressor, in units of its targets."""
        return self._model(network), {"shape": self.shape}
