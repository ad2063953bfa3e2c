"""Shape models: moments of the classes, honest supports, plausible draws, files."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage
from torch.nn.functional import avg_pool3d

from cfx.confounder.shape.model import ShapeModel
from cfx.confounder.shape.pca import Codec, SdfPca
from cfx.confounder.shape.vae import ShapeVae
from cfx.core.distance import signed_distance, solid
from cfx.core.errors import CheckpointError, InputError
from cfx.core.scores import dice
from cfx.data.brain import BrainConfig, Confounder, load_brain
from tests.confounder.shape.toys import brains, ellipsoids


@pytest.fixture(scope="module", params=["pca", "vae"])
def fitted(request, train_set, vae):
    d, y = train_set
    return ShapeModel.fit(vae if request.param == "vae" else SdfPca.fit(d, 6), d, y)


@pytest.fixture(scope="module")
def model():
    d = signed_distance(ellipsoids(60))
    y = (torch.arange(60) % 3 == 0).long()
    return ShapeModel.fit(SdfPca.fit(d, 2), d, y)


class TestModel:
    def test_means_and_covariance_are_those_of_the_codes(self, model):
        d = signed_distance(ellipsoids(60))
        y = (torch.arange(60) % 3 == 0).long()
        z = model.encode(d)
        for c in (0, 1):
            assert torch.allclose(model.mean(c)[0], z[y == c].mean(0), atol=1e-6)
        inner = torch.cat([z[y == c] - z[y == c].mean(0) for c in (0, 1)])
        assert torch.allclose(model.factor @ model.factor.T, inner.T @ inner / 58, atol=1e-5)

    def test_draws_have_the_class_moments_and_are_counter_based(self, model):
        z = model.draw(1, 4000, seed=5)
        assert torch.allclose(z.mean(0), model.mean(1)[0], atol=0.06)
        assert torch.allclose(z.T.cov(), model.factor @ model.factor.T, atol=0.08)
        assert torch.equal(model.draw(1, 7, seed=5), z[:7])
        assert not torch.equal(model.draw(1, 7, seed=6), z[:7])
        assert not torch.equal(model.draw(0, 7, seed=5) - model.mean(0), z[:7] - model.mean(1))

    def test_between_ends_at_its_ends_and_is_straight(self, model):
        a, b = model.draw(0, 3), model.draw(1, 3)
        assert torch.equal(model.between(a, b, 0.0), a)
        assert torch.equal(model.between(a, b, 1.0), b)
        assert torch.allclose(model.between(a, b, torch.tensor([0.25, 0.5, 1.0]))[1], (a[1] + b[1]) / 2)

    def test_a_shape_out_of_the_span_is_outside_though_its_code_is_central(self, model):
        mask = model.decode(model.mean(0)) <= 0
        assert bool(model.inside(mask))
        odd = mask.clone()
        odd[:, :, 2:12, 8:12] = True  # a bump
        found = model.support(odd)
        assert float(found.residual) > 2 * float(model.support(mask).residual)
        assert not bool(found.inside)

    def test_a_shape_far_along_the_modes_is_outside(self, model):
        far = model.mean(0) + 6 * model.factor[:, 0]
        assert not bool(model.inside(model.decode(far)))

    def test_a_lower_level_lets_fewer_in(self, model):
        mask = ellipsoids(200, seed=9)
        share = [float(model.inside(mask, level=level).double().mean()) for level in (0.5, 0.8, 0.95, 0.999)]
        assert share == sorted(share)
        assert share[0] < share[-1]

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda m: m.mean(2), r"y: expected a class 0 .. 1, got 2"),
            (lambda m: m.draw(-1, 2), r"y: expected a class 0 .. 1, got -1"),
            (lambda m: m.draw(0, -2), "n: expected a number >= 0, got -2"),
            (lambda m: m.decode(torch.zeros(2, 3)), r"z: expected codes \(n, 2\), got shape \(2, 3\)"),
            (lambda m: m.support(ellipsoids(2), level=1.0), r"level: expected a number in \(0, 1\), got 1.0"),
        ],
    )
    def test_bad_input_is_named(self, model, call, message):
        with pytest.raises(InputError, match=message):
            call(model)

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"y": torch.zeros(5, dtype=torch.int64)}, "y: expected 20 integers"),
            (
                {"y": 2 * torch.ones(20, dtype=torch.int64)},
                r"y: expected classes 0, 1, ... with shapes in each, got \[2",
            ),
            ({"groups": torch.zeros(20, dtype=torch.int64)}, "groups: expected at least 5 different subjects, got 1"),
        ],
    )
    def test_bad_labels_are_named(self, more, message):
        d = signed_distance(ellipsoids(20))
        with pytest.raises(InputError, match=message):
            ShapeModel.fit(SdfPca.fit(d, 2), d, **more)

    def test_too_few_shapes_for_a_covariance(self):
        d = signed_distance(ellipsoids(12))
        with pytest.raises(InputError, match="shape: expected at least 12 shapes for codes of 10, got 8"):
            ShapeModel.fit(SdfPca.fit(d, 10), d[:8])


def test_new_codes_pass_the_distance_test_as_often_as_hotelling_says():
    """Small samples: the chi-square limit would let too few in, by far."""
    generator = torch.Generator().manual_seed(0)
    codec, passed = SdfPca.fit(ellipsoids(8), 1), []
    for _ in range(300):
        z = torch.randn(16, 5, generator=generator)
        factor = torch.linalg.cholesky(torch.cov(z.T))
        model = ShapeModel(codec, z.mean(0, keepdim=True), factor, torch.tensor([16]), torch.zeros(5))
        far = model._mahalanobis(torch.randn(20, 5, generator=generator))
        passed.append((far <= model._distance_limit(0.95)).double().mean())
    rate = np.array(passed)
    assert abs(rate.mean() - 0.95) < 3 * rate.std() / len(rate) ** 0.5


def test_unseen_brains_are_inside_as_often_as_asked(train_set):
    d, y = train_set
    model = ShapeModel.fit(SdfPca.fit(d, 6), d, y)
    share = float(model.inside(brains(200, start=1000)[0]).double().mean())
    assert 0.91 <= share <= 0.99  # 200 rows and a fit of 160: three standard errors about 0.95


class TestDraws:
    def test_they_are_single_bodies_of_ordinary_volume(self, fitted, train_set):
        """Of 600 other subjects 2.5 % lie outside the range of volumes of these 160; draws may do so as often."""
        mask = fitted.decode(torch.cat([fitted.draw(c, 200) for c in (0, 1)])) <= 0
        assert all(ndimage.label(m)[1] == 1 for m in mask[:, 0].numpy())
        volume, known = mask.flatten(1).sum(1), (train_set[0] <= 0).flatten(1).sum(1)
        outside = ((volume < known.min()) | (volume > known.max())).double().mean()
        assert float(outside) <= 0.05  # three standard errors above
        assert float(volume.double().std()) == pytest.approx(float(known.double().std()), rel=0.15)

    def test_classes_differ_as_the_planted_shape_does(self, fitted):
        """The twin of a subject differs in the planted shape alone: its direction is the truth."""
        cohort = load_brain(
            BrainConfig(n=60, seed=3, start=3000, confounders=(Confounder(kind="shape"),), label="shape")
        )
        present, absent = (solid(cohort.mask[cohort.y == c]).double().mean((0, 1)) for c in (1, 0))
        drawn = [(fitted.decode(fitted.draw(c, 100)) <= 0).double().mean((0, 1)) for c in (1, 0)]
        truth, found = (present - absent).flatten(), (drawn[0] - drawn[1]).flatten()
        assert float(torch.corrcoef(torch.stack([truth, found]))[0, 1]) > 0.8


class TestFiles:
    def test_a_saved_model_is_the_same_model(self, fitted, train_set, tmp_path):
        fitted.save(tmp_path / "m")
        again = ShapeModel.load(tmp_path / "m")
        assert isinstance(again.codec, Codec)
        assert again.codec.kind == fitted.codec.kind
        d = train_set[0][:8]
        assert torch.equal(again.encode(d), fitted.encode(d))
        assert torch.equal(again.decode(again.draw(1, 4)), fitted.decode(fitted.draw(1, 4)))
        assert torch.equal(again.support(d).inside, fitted.support(d).inside)
        assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["model.safetensors", "shape.json"]
        assert load_file(tmp_path / "m" / "model.safetensors")

    @pytest.mark.parametrize("file", ["shape.json", "model.safetensors"])
    def test_damage_is_found(self, fitted, tmp_path, file):
        fitted.save(tmp_path / "m")
        path = tmp_path / "m" / file
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(CheckpointError):
            ShapeModel.load(tmp_path / "m")

    def test_missing_and_foreign_files_are_named(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"shape.json: expected the manifest of a shape model"):
            ShapeModel.load(tmp_path)
        (tmp_path / "shape.json").write_text(json.dumps({"schema_version": 1}))
        with pytest.raises(CheckpointError, match="manifest of a shape model"):
            ShapeModel.load(tmp_path)


@pytest.fixture(scope="module")
def real(realdata):
    """Signed distances of 70 masks of three sources at 4 mm, averaged to 8 mm, and which is the failed skull strip."""
    z = np.load(realdata / "brain_masks_2mm_70.npz")
    failed = [m["dataset"] == "LJ-MS-1.5T" and m["subject"] == "patient19" for m in json.loads(str(z["meta"]))]
    assert sum(failed) == 1
    flat = np.unpackbits(z["packed"], axis=1)[:, : np.prod(z["shape"][1:])]
    mask = torch.from_numpy(flat.reshape(z["shape"]))[:, None]
    coarse = torch.stack([avg_pool3d(m.float(), 2) >= 0.5 for m in mask])
    return avg_pool3d(signed_distance(solid(coarse)), 2) / 2, torch.tensor(failed)


@pytest.mark.realdata
@pytest.mark.parametrize(("k", "least"), [(5, 0.95), (20, 0.96)])
def test_real_brains(real, tmp_path, k, least):
    """Every fourth of 69 masks is left out; both models with k numbers a shape."""
    distance = real[0][~real[1]]
    out = torch.arange(len(distance)) % 4 == 0
    pca = SdfPca.fit(distance[~out], k)
    vae = ShapeVae.fit(distance[~out], k, tmp_path / "run", steps=20)
    closed, trained = (dice(c.decode(c.encode(distance[out])) <= 0, distance[out] <= 0) for c in (pca, vae))
    assert float(closed.mean()) > least
    assert float((trained - closed).mean()) > 0


@pytest.mark.realdata
def test_the_failed_skull_strip_is_outside(real):
    distance, failed = real
    model = ShapeModel.fit(SdfPca.fit(distance[~failed], 10), distance[~failed])
    assert not bool(model.inside(distance[failed]))
    assert model.inside(distance[~failed]).double().mean() > 0.9
