"""The trained codec of shapes: its start in closed form, its climb, and what training adds to principal components."""

import pytest
import torch

from cfx.confounder.shape.model import ShapeModel
from cfx.confounder.shape.pca import SdfPca
from cfx.confounder.shape.vae import ShapeVae, started
from cfx.core.errors import InputError
from cfx.core.scores import dice
from tests.confounder.shape.toys import SPACE, brains, ellipsoids


class TestVae:
    def test_where_nothing_is_bent_it_is_the_principal_components(self, train_set):
        d = train_set[0]
        pca = SdfPca.whole(d, most=20)
        net = started(pca, (d / pca.clip).clamp(-1, 1), 6).eval()
        torch.nn.init.zeros_(net.outward.weight)
        few = SdfPca.fit(d, 6)
        z = few.encode(d[:5])
        assert torch.allclose(net.encode((d[:5] / pca.clip).clamp(-1, 1))[0], z, atol=1e-3)
        assert torch.allclose(ShapeVae(net, pca.clip).decode(z), few.decode(z), atol=1e-3)

    def test_the_start_is_kernel_ridge_regression(self, train_set):
        d = train_set[0][:30]
        pca = SdfPca.whole(d, most=10)
        x = (d / pca.clip).clamp(-1, 1)
        net = started(pca, x, 4)
        c = pca.encode(d).double()
        kernel = torch.exp(-(torch.cdist(c[:, :4], c[:, :4]) ** 2) / 8)
        expected = kernel @ torch.linalg.solve(kernel + torch.eye(30), c[:, 4:])
        found = net.coefficients(net.centres)
        assert torch.allclose(found[:, 4:].double(), expected, atol=1e-3)
        assert torch.allclose(found[:, :4], net.centres, atol=1e-5)

    def test_the_code_is_at_least_as_likely_as_the_encoders(self, vae, train_set):
        x = (train_set[0][:20] / vae.clip).clamp(-1, 1)
        proposed, climbed = vae.network.encode(x)[0], vae.encode(train_set[0][:20])
        with torch.no_grad():
            before, after = vae._loss(x, proposed), vae._loss(x, climbed)
        assert (after <= before).all()
        assert (after < before - 1e-3).double().mean() > 0.9

    def test_it_finds_the_code_of_a_shape_it_made(self, vae, train_set):
        z = vae.encode(train_set[0][:10])
        again = vae.encode(vae.decode(z))
        assert (again - z).abs().max() < 0.1

    def test_rows_do_not_see_each_other(self, vae, train_set):
        z = vae.encode(train_set[0][:6])
        alone = vae.encode(train_set[0][2:3])
        assert torch.allclose(z[2:3], alone, atol=5e-3)  # a last step is kept or not by a loss that rounds

    def test_it_describes_unseen_brains_better_than_as_many_components(self, vae, train_set):
        mask = brains(100, start=2000)[0]
        pca = SdfPca.fit(train_set[0], 6)
        gain = dice(vae.decode(vae.encode(mask)) <= 0, mask) - dice(pca.decode(pca.encode(mask)) <= 0, mask)
        error = float(gain.std()) / 10
        assert float(gain.mean()) > 2 * error

    def test_training_again_gives_the_same_and_a_finished_folder_is_refused(self, train_set, tmp_path):
        d = train_set[0][:24]
        a, b = (ShapeVae.fit(d, 3, tmp_path / name, steps=3) for name in "ab")
        for p, q in zip(a.network.parameters(), b.network.parameters(), strict=True):
            assert torch.equal(p, q)
        with pytest.raises(InputError, match="folder: expected one without a finished run"):
            ShapeVae.fit(d, 3, tmp_path / "a", steps=3)

    def test_volumes(self, tmp_path):
        mask = ellipsoids(24, 3)
        codec = ShapeVae.fit(mask, 3, tmp_path / "run", steps=3)
        assert dice(codec.decode(codec.encode(mask)) <= 0, mask).mean() > 0.95
        model = ShapeModel.fit(codec, mask)
        assert model.decode(model.draw(0, 2)).shape == (2, 1, *SPACE[3])


def test_more_numbers_than_shapes_span_are_refused():
    with pytest.raises(InputError, match=r"k: expected 1 .. \d numbers, as many modes as shapes span, got 8"):
        ShapeVae.fit(ellipsoids(8), 8, "unused")
