"""What several tests of shapes learn from and train, once."""

import pytest

from cfx.confounder.shape.vae import ShapeVae
from cfx.core.distance import signed_distance
from tests.confounder.shape.toys import brains


@pytest.fixture(scope="session")
def train_set():
    """Signed distances of 160 brains, and whether their shape is the planted one."""
    mask, cohort = brains(160)
    return signed_distance(mask), (cohort.covariates["planted_shape"] > 0).long()


@pytest.fixture(scope="session")
def vae(train_set, tmp_path_factory):
    """A codec trained on them."""
    return ShapeVae.fit(train_set[0], 6, tmp_path_factory.mktemp("vae") / "run", steps=60)
