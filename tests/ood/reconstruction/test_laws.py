"""What holds for every detector here: its cost, that images do not know of each other, that odd ones stand out."""

from dataclasses import fields

import pytest
import torch

from cfx.core.errors import InputError
from cfx.ood import DETECTORS, build_detector, fit, walks
from cfx.ood.detector import Learn, Spent
from tests.ood.detectors import GaussianGenerator, cohort, images
from tests.ood.reconstruction.known import CodeGenerator, LinearVae, LongGenerator, ask, learn, maps, tools

COSTS = {
    "vae": ({}, {"autoencoder": 2}),
    "vae-elbo": ({"draws": 3}, {"autoencoder": 2 + 3}),
    "vae-mahalanobis": ({}, {"autoencoder": 2}),
    "likelihood-regret": ({"steps": 7, "draws": 2}, {"autoencoder": 1 + 2 * 2 + 2 * 7}),
    "typicality": ({"draws": 3}, {"autoencoder": 1 + 3}),
    "multi-start": ({"steps": 10, "skip": 4}, {"unet_forward": 2 + 6 + 10}),
    "lift-map-detect": ({"repeats": 3, "steps": 5, "blocks": 4}, {"unet_forward": 3 * 5}),
    "simplex": ({"steps": 9}, {"unet_forward": 9}),
    "projection-regret": ({"steps": 3, "draws": 4}, {"unet_forward": 3 * 3 * 4}),
    "trajectory-curvature": ({}, {"unet_forward": 5}),
    "msma": ({"levels": 6, "lowest": 0.1}, {"unet_forward": 6}),
    "diffpath": ({}, {"unet_forward": 10}),
}
MAPPED = {*COSTS} - {"likelihood-regret", "typicality", "msma", "diffpath"}
FEATURES = {  # with the maps of features
    "vae": ({"error": "perceptual"}, 2),
    "vae-mahalanobis": ({"error": "perceptual"}, 2),
    "lift-map-detect": ({"error": "perceptual"}, 1 + 3),
    "multi-start": ({}, 1 + 3),
    "projection-regret": ({"error": "perceptual"}, 1 + 3 * 4),
}
DIFFUSION = [name for name, (_, cost) in COSTS.items() if "unet_forward" in cost]


def scorer(name, n=24, space=(8, 8), settings=None, **given):
    """A detector with few evaluations, fitted without features."""
    found = learn(n, space, **({"features": None} | given))
    return build_detector(name, **COSTS[name][0] | (settings or {})).fit(found)


def scored(fitted, x, **given):
    """What it says of images, and what it spent."""
    batch = ask(x, **({"features": None} | given))
    with torch.no_grad():
        return fitted(batch), batch.spent


def test_all_that_are_registered_are_tried():
    assert set(COSTS) == {name for name, where in DETECTORS.items() if where.startswith("reconstruction.")}


@pytest.mark.parametrize("name", COSTS)
def test_it_costs_what_it_says(name):
    _, spent = scored(scorer(name), images(3))
    assert {kind: getattr(spent, kind).tolist() for kind in Spent.KINDS if getattr(spent, kind).any()} == {
        kind: [count] * 3 for kind, count in COSTS[name][1].items()
    }


@pytest.mark.parametrize("name", FEATURES)
def test_features_cost_what_it_says(name):
    settings, cost = FEATURES[name]
    _, spent = scored(scorer(name, settings=settings, features=maps), images(3), features=maps)
    assert spent.features.tolist() == [cost] * 3


def test_by_default_the_costs_are_the_published_ones():
    x = cohort(3)
    for name, count in {
        "multi-start": 350,
        "simplex": 250,
        "msma": 10,
        "diffpath": 10,
        "trajectory-curvature": 5,
    }.items():
        found = build_detector(name).fit(Learn(x, tools(features=None, generator=LongGenerator())))
        assert scored(found, x.x[:1], generator=LongGenerator())[1].unet_forward.tolist() == [count]


@pytest.mark.parametrize("space", [(8, 8), (4, 6, 4)])
@pytest.mark.parametrize("name", COSTS)
def test_an_image_scores_the_same_whatever_stands_beside_it(name, space):
    fitted, x = scorer(name, 12, space), images(5, seed=9, space=space)
    together, _ = scored(fitted, x)
    alone, _ = scored(fitted, x[2:3])
    torch.testing.assert_close(together.score[2:3], alone.score, rtol=1e-4, atol=1e-5)
    assert (together.map is not None) == (name in MAPPED)
    if together.map is not None:
        assert together.map.shape == (5, 1, *space)
        torch.testing.assert_close(together.map[2:3], alone.map, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", COSTS)
def test_the_same_seed_gives_the_same_scores(name):
    x = images(3, seed=9)
    assert torch.equal(scored(scorer(name, 12), x)[0].score, scored(scorer(name, 12), x)[0].score)


@pytest.mark.parametrize("space", [(8, 8), (4, 4, 4)])
@pytest.mark.parametrize("name", COSTS)
def test_an_image_far_out_scores_above_all_ordinary_ones(name, space):
    # contrast between neighbouring voxels is neither in the codes nor in pixels this narrow; what regret sees is a code
    # that its prior does not expect
    far = torch.ones(1, 1, *space)
    far.flatten()[:: 2 if name != "likelihood-regret" else far.numel()] = -1
    found, _ = scored(scorer(name, space=space), torch.cat([images(30, seed=9, space=space), far]))
    assert bool((found.score[-1] > found.score[:-1]).all())


@pytest.mark.parametrize("name", ["multi-start", "lift-map-detect", "projection-regret", "msma"])
def test_memory_changes_neither_scores_nor_costs(name, monkeypatch):
    given = {"generator": CodeGenerator()}
    fitted = scorer(name, settings={"blocks": 2} if name == "lift-map-detect" else {}, **given)
    whole, spent = scored(fitted, images(3), **given)
    monkeypatch.setattr(walks, "_VOXELS", 1)
    single, again = scored(fitted, images(3), **given)
    torch.testing.assert_close(whole.score, single.score, rtol=1e-4, atol=1e-5)
    assert torch.equal(spent.unet_forward, again.unet_forward)
    assert torch.equal(spent.autoencoder, again.autoencoder)


@pytest.mark.parametrize("name", DIFFUSION)
def test_a_latent_generator_is_asked_about_codes_and_its_autoencoder_counted(name):
    given = {"generator": CodeGenerator()}
    settings = {"blocks": 2} if name == "lift-map-detect" else {}
    found, spent = scored(scorer(name, settings=settings, **given), images(3), **given)
    assert spent.unet_forward.tolist() == [COSTS[name][1]["unet_forward"]] * 3
    assert bool((spent.autoencoder > 0).all())
    assert found.map is None or found.map.shape == (3, 1, 8, 8)


@pytest.mark.parametrize("name", COSTS)
def test_settings_out_of_range_are_refused_by_name(name):
    kind = type(build_detector(name))
    for of in (f for f in fields(kind) if f.name != "error"):
        with pytest.raises(InputError, match=of.name):
            build_detector(name, **{of.name: type(of.default)(0)})


@pytest.mark.parametrize("name", ["vae", "vae-mahalanobis", "lift-map-detect", "projection-regret"])
def test_a_perceptual_error_wants_features_and_another_is_unknown(name):
    with pytest.raises(InputError, match="features: expected a function"):
        scorer(name, settings={"error": "perceptual"})
    with pytest.raises(InputError, match="error: expected one of"):
        build_detector(name, error="lpips")


@pytest.mark.parametrize("name", ["msma", "vae-mahalanobis"])
def test_through_the_engine(name):
    found = fit(cohort(40), name, generator=GaussianGenerator(), autoencoder=LinearVae()).score(images(4))
    assert found.score.isfinite().all()
    assert bool(((found.p > 0) & (found.p <= 1)).all())
