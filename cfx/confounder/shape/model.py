"""A shape model: codes of shapes, their distribution in every class, and where that stops.

A `Codec` (`SdfPca` in closed form, `ShapeVae` trained) turns shapes into codes z and back. `ShapeModel` adds Gaussians
with one covariance S and a mean m_y for every class y, and decides whether a shape lies inside the model's support by
two tests at half the asked error each:

- for a new code of a Gaussian class with estimated mean and covariance, the squared Mahalanobis distance D^2 follows
  (1 + 1/n_y) nu k / (nu - k + 1) F(k, nu - k + 1), nu = n - classes (Hotelling 1931); the class with least D^2
  relative to its own factor 1 + 1/n_y counts;
- the residual, what a code cannot say, in voxels at the boundary: its logarithm must not exceed the prediction limit
  from shapes that principal components fitted without them had to describe (so the limit errs on the wide side for a
  codec that describes unseen shapes better).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from cfx.confounder.shape.pca import Codec, SdfPca, as_distance, clipped
from cfx.confounder.shape.vae import NAME, ShapeVae
from cfx.core.errors import CheckpointError, InputError
from cfx.core.groups import dealt, numbered
from cfx.core.random import normal
from cfx.models import build
from cfx.models.shape import ShapeNetwork
from cfx.runtime.files import atomic_folder, check_files, digest, read_tensors, sha256, write_tensors

SCHEMA = 1
WEIGHTS, MANIFEST = "model.safetensors", "shape.json"
_FOLDS = 5


@dataclass(frozen=True)
class Support:
    """Where shapes stand to a model, one entry a row.

    Attributes:
        distance: Squared Mahalanobis distance of the code to the nearest class, over 1 + 1/n_y.
        residual: Root-mean-square residual at the boundary, voxels.
        inside: Whether both are within their limits.
    """

    distance: Float[Tensor, " n"]
    residual: Float[Tensor, " n"]
    inside: Bool[Tensor, " n"]


@dataclass(frozen=True)
class ShapeModel:
    """A codec with the distribution of its codes.

    Attributes:
        codec: Shapes to codes and back.
        means: Mean code of every class `(classes, k)`.
        factor: Cholesky factor of the covariance within classes `(k, k)`.
        counts: Shapes of every class.
        residuals: Logarithms of the residuals of shapes left out of the fit.
    """

    codec: Codec
    means: Float[Tensor, "classes k"]
    factor: Float[Tensor, "k k"]
    counts: Int[Tensor, " classes"]
    residuals: Float[Tensor, " n"]

    @classmethod
    def fit(
        cls,
        codec: Codec,
        shape: Tensor,
        y: Int[Tensor, " n"] | None = None,
        *,
        groups: Int[Tensor, " n"] | None = None,
        mirror: int | None = None,
        seed: int = 0,
    ) -> Self:
        """Describe the codes of the shapes that the codec was fitted to.

        Args:
            codec: Fitted to these shapes.
            shape: Masks (bool) or signed distances (voxels), `(n, 1, *space)`.
            y: Class of every shape, 0 .. classes - 1; one class by default.
            groups: Subject of every shape: scans of one subject are left out together. All different by default.
            mirror: As the codec was fitted.
            seed: Seed of the split into shapes fitted and left out.

        Raises:
            InputError: labels or groups that do not match the shapes, a class without shapes, or too few shapes for
                codes of this length.
        """
        distance = as_distance(shape)
        n = len(distance)
        y = torch.zeros(n, dtype=torch.int64) if y is None else y
        groups = torch.arange(n) if groups is None else groups
        counts = _counted(y, groups, n)
        z = codec.encode(distance)
        k, freedom = z.shape[1], n - len(counts)
        if freedom < k + 1:
            raise InputError(f"shape: expected at least {k + len(counts) + 1} shapes for codes of {k}, got {n}")
        means = torch.stack([z[y == c].mean(0) for c in range(len(counts))])
        inner = (z - means[y]).double()
        covariance = inner.T @ inner / freedom
        factor = torch.linalg.cholesky(covariance).float().contiguous()
        residuals = _left_out(distance, k, groups, mirror, seed).log()
        return cls(codec, means, factor, counts, residuals)

    def encode(self, shape: Tensor) -> Float[Tensor, "n k"]:
        """Codes of masks (bool) or signed distances (voxels); errors as the codec's."""
        return self.codec.encode(shape)

    def decode(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n 1 *space"]:
        """Signed distances in voxels, clipped; the mask is where they are <= 0.

        Raises:
            InputError: codes of another length.
        """
        k = self.means.shape[1]
        if z.ndim != 2 or z.shape[1] != k:
            raise InputError(f"z: expected codes (n, {k}), got shape {tuple(z.shape)}")
        return self.codec.decode(z)

    def mean(self, y: int) -> Float[Tensor, "1 k"]:
        """Mean code of class `y`.

        Raises:
            InputError: no such class.
        """
        if not 0 <= y < len(self.means):
            raise InputError(f"y: expected a class 0 .. {len(self.means) - 1}, got {y}")
        return self.means[y : y + 1]

    def draw(self, y: int, n: int, *, seed: int = 0) -> Float[Tensor, "n k"]:
        """Codes of n new shapes of class `y`; draw i depends on seed, class and i alone.

        Raises:
            InputError: no such class, or a negative number.
        """
        if n < 0:
            raise InputError(f"n: expected a number >= 0, got {n}")
        mean = self.mean(y)
        eps = normal(mean.shape[1:], seed=seed, row=torch.arange(n), stream=y)
        return mean + eps @ self.factor.T

    def between(
        self, a: Float[Tensor, "n k"], b: Float[Tensor, "n k"], t: float | Float[Tensor, " n"]
    ) -> Float[Tensor, "n k"]:
        """Codes on the way from a (t = 0) to b (t = 1), straight in the space of codes.

        Raises:
            InputError: codes of other shapes.
        """
        if a.shape != b.shape:
            raise InputError(f"b: expected codes {tuple(a.shape)} as a, got {tuple(b.shape)}")
        return torch.lerp(a, b, torch.as_tensor(t, dtype=a.dtype).reshape(-1, 1))

    def support(self, shape: Tensor, *, level: float = 0.95) -> Support:
        """How far shapes are from the model, and whether that is usual.

        Args:
            shape: Masks (bool) or signed distances (voxels).
            level: Share of new shapes of the fitted kind that should be inside (at least).

        Raises:
            InputError: `level` outside (0, 1), or shapes on another grid.
        """
        if not 0 < level < 1:
            raise InputError(f"level: expected a number in (0, 1), got {level}")
        distance = as_distance(shape)
        z = self.codec.encode(distance)
        residual = _residual(self.codec, distance, z)
        far = self._mahalanobis(z)
        quantile = (1 + level) / 2  # half of the error for each test
        inside = (far <= self._distance_limit(quantile)) & (residual <= self._residual_limit(quantile))
        return Support(far, residual, inside)

    def inside(self, shape: Tensor, *, level: float = 0.95) -> Bool[Tensor, " n"]:
        """`support(shape).inside`."""
        return self.support(shape, level=level).inside

    def _mahalanobis(self, z: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        gap = (z[:, None] - self.means).transpose(1, 2)  # (n, k, classes)
        white = torch.linalg.solve_triangular(self.factor.expand(len(z), -1, -1), gap, upper=False)
        far: Tensor = (white.square().sum(1) / (1 + 1 / self.counts)).amin(1)
        return far

    def _distance_limit(self, quantile: float) -> float:
        k, freedom = self.means.shape[1], int(self.counts.sum()) - len(self.counts)
        left = freedom - k + 1
        return freedom * k / left * float(stats.f.ppf(quantile, k, left))

    def _residual_limit(self, quantile: float) -> float:
        """Prediction limit of one more value of a log-normal."""
        r = self.residuals.double()
        t = float(stats.t.ppf(quantile, len(r) - 1))
        return float((r.mean() + t * r.std() * (1 + 1 / len(r)) ** 0.5).exp())

    def save(self, path: str | Path) -> None:
        """Write a folder: `shape.json` and `model.safetensors`; one already there is replaced."""
        tensors, facts = _parts(self.codec)
        tensors = {f"codec.{name}": value for name, value in tensors.items()}
        tensors |= {"means": self.means, "factor": self.factor, "counts": self.counts, "residuals": self.residuals}
        with atomic_folder(Path(path)) as folder:
            write_tensors(folder / WEIGHTS, tensors)
            values = {"schema_version": SCHEMA, "kind": self.codec.kind, "clip": self.codec.clip, **facts}
            values["files"] = {WEIGHTS: sha256(folder / WEIGHTS)}
            (folder / MANIFEST).write_text(json.dumps(values | {"sha256": digest(values)}, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a folder that `save` wrote.

        Raises:
            CheckpointError: a file is missing or changed, or of an unknown schema or kind.
        """
        values = _manifest(Path(path))
        check_files(Path(path), values["files"])
        tensors = read_tensors(Path(path) / WEIGHTS)
        own = {k.removeprefix("codec."): v for k, v in tensors.items() if k.startswith("codec.")}
        rest = {k: v for k, v in tensors.items() if not k.startswith("codec.")}
        return cls(codec=_codec(values, own), **rest)


def _counted(y: Tensor, groups: Tensor, n: int) -> Int[Tensor, " classes"]:
    """Shapes of every class.

    Raises:
        InputError: see `ShapeModel.fit`.
    """
    for name, value in (("y", y), ("groups", groups)):
        if value.shape != (n,) or value.is_floating_point():
            raise InputError(f"{name}: expected {n} integers, got {value.dtype} of shape {tuple(value.shape)}")
    if int(y.min()) < 0 or bool((y.bincount() == 0).any()):
        raise InputError(f"y: expected classes 0, 1, ... with shapes in each, got {sorted(set(y.tolist()))}")
    if len(groups.unique()) < _FOLDS:
        raise InputError(f"groups: expected at least {_FOLDS} different subjects, got {len(groups.unique())}")
    return y.bincount()


def _residual(codec: Codec, distance: Float[Tensor, "n 1 *space"], z: Tensor) -> Float[Tensor, " n"]:
    """Root mean square of what the codes leave out, in voxels, over where the shape's distance is not clipped."""
    x = codec.clip * clipped(distance, codec.clip, codec.space)
    near = (x.abs() < codec.clip).flatten(1)
    squared = (x - codec.decode(z)).flatten(1).square() * near
    return (squared.sum(1) / near.sum(1).clamp_min(1)).sqrt()


def _left_out(distance: Tensor, k: int, groups: Tensor, mirror: int | None, seed: int) -> Float[Tensor, " n"]:
    """Residual of every shape under principal components of the other folds."""
    fold = dealt(numbered(groups, len(distance)), _FOLDS, seed=seed)
    found = torch.zeros(len(distance))
    for f in range(_FOLDS):
        out = fold == f
        whole = SdfPca.whole(distance[~out], mirror=mirror, most=k)
        found[out] = _residual(whole, distance[out], whole.encode(distance[out]))
    return found


def _parts(codec: Codec) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a codec, and the facts that build it."""
    match codec:
        case SdfPca():
            return {"mean": codec.mean, "basis": codec.basis, "scale": codec.scale}, {}
        case ShapeVae():
            return dict(codec.network.state_dict()), {"config": codec.network.keywords}
    raise InputError(f"codec: expected SdfPca or ShapeVae to save, got {type(codec).__name__}")


def _codec(values: Mapping[str, Any], tensors: dict[str, Tensor]) -> Codec:
    """The codec of a manifest."""
    match values["kind"]:
        case "pca":
            return SdfPca(clip=values["clip"], **tensors)
        case "vae":
            network = cast(ShapeNetwork, build(NAME, **values["config"]))
            network.load_state_dict(tensors)
            return ShapeVae(network.eval(), values["clip"])
    raise CheckpointError(f"{MANIFEST}: expected kind pca or vae, got {values['kind']!r}")


def _manifest(path: Path) -> dict[str, Any]:
    """The verified contents of `shape.json`."""
    file = path / MANIFEST
    try:
        values: dict[str, Any] = json.loads(file.read_text())
        recorded = values.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{file}: expected the manifest of a shape model, {error}") from error
    if digest(values) != recorded:
        raise CheckpointError(f"{file}: damaged; expected SHA-256 {recorded}, got {digest(values)}")
    if values.get("schema_version") != SCHEMA:
        raise CheckpointError(f"{file}: expected schema version {SCHEMA}, got {values.get('schema_version')}")
    return values
