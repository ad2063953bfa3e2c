"""Fitting, calibrating and scoring: p-values that hold, rows that do not depend on their batch, clear refusals."""

import pytest
import torch
from scipy import stats

from cfx.core.cohort import Cohort
from cfx.core.conformal import conformal_p_values, conformal_quantile
from cfx.core.errors import CfxWarning, InputError
from cfx.core.gates import Gate
from cfx.ood import Membership, fit, score
from cfx.ood.fit import _check_given
from tests.ood.detectors import GaussianGenerator, MeanDetector, cohort, images

SCALAR = MeanDetector()


def test_p_values_are_the_conformal_ones_of_other_rows():
    fitted = fit(cohort(20), SCALAR, calibration=cohort(40, seed=1), level=0.1)
    found = fitted.score(images(30, seed=2))
    assert torch.equal(found.p, conformal_p_values(fitted.calibration, found.score.double()))
    assert torch.equal(found.verdict == int(Membership.OUT), found.p <= 0.1)
    assert found.calibrated == 40
    assert float(found.p.min()) >= 1 / 41


def test_p_values_of_new_images_of_the_distribution_are_uniform():
    first, shares = [], []
    for repeat in range(400):  # calibration and image anew each time: the p-values are independent
        fitted = fit(cohort(4, seed=3 * repeat), SCALAR, calibration=cohort(99, seed=3 * repeat + 1))
        p = fitted(images(20, seed=3 * repeat + 2))
        first.append(p[0])
        shares.append((p <= 0.1).double().mean())
    p = torch.stack(first)
    assert stats.kstest(p.numpy(), stats.uniform.cdf).pvalue > 0.01
    for level in (0.01, 0.05, 0.1):
        low, high = stats.binom(len(p), level).ppf([0.005, 0.995])
        assert low <= int((p <= level).sum()) <= high
    assert float(torch.stack(shares).mean()) == pytest.approx(0.1, abs=0.01)


def test_a_fitted_detector_is_a_gate():
    fitted = fit(cohort(20), SCALAR)
    assert isinstance(fitted, Gate)
    assert fitted(images(3)).shape == (3,)


def test_the_calibration_is_of_other_subjects():
    x = images(12)
    same = Cohort(x, ids=tuple(str(i // 3) for i in range(12)))  # four subjects of three images
    fitted = fit(same, SCALAR, calibration=0.5)
    assert len(fitted.calibration) == 6
    with pytest.raises(InputError, match="calibration: expected other subjects"):
        fit(same[:6], SCALAR, calibration=same[3:])


def test_scores_do_not_depend_on_the_batch_and_evaluations_are_counted():
    generator = GaussianGenerator()
    found = [fit(cohort(40), generator=generator, batch_size=b).score(images(9, seed=5)) for b in (64, 2)]
    assert torch.allclose(found[0].score, found[1].score, atol=1e-4)
    assert found[0].nfe_unet_forward.tolist() == [5] * 9
    assert int(found[0].nfe_autoencoder.sum() + found[0].nfe_classifier.sum()) == 0


def test_in_one_call():
    assert torch.equal(score(images(4), cohort(20), SCALAR).p, fit(cohort(20), SCALAR)(images(4)))


def test_nothing_to_score_is_a_result_of_no_rows():
    assert len(fit(cohort(20), SCALAR).score(images(0))) == 0


def test_discoveries_keep_their_share():
    far = torch.cat([images(20, seed=9), images(20, seed=8) + 0.5]).clamp(-1, 1)
    found = fit(cohort(20), SCALAR, calibration=cohort(200, seed=1)).score(far)
    assert bool(found.discoveries(0.1)[20:].all())
    assert int(found.discoveries(0.1)[:20].sum()) <= 6


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fit(cohort(20)), "denoising: expected a diffusion model: generator=..., got none"),
        (lambda: fit(cohort(20), "denoisng"), "detector: expected one of"),
        (lambda: fit(cohort(20), SCALAR, level=0.0), r"level: expected a number in \(0, 1\), got 0.0"),
        (lambda: fit(cohort(20), SCALAR, calibration=1.0), "calibration: expected a number"),
        (lambda: fit(cohort(1), SCALAR, calibration=cohort(4, seed=1)), "at least two images to fit to, got 1"),
        (lambda: fit(cohort(4), SCALAR, calibration=cohort(4, seed=1)[:0]), "at least one image to calibrate on"),
        (lambda: fit(cohort(4), SCALAR, calibration=cohort(4, 1, (4, 4))), "calibration: expected images of the shape"),
        (lambda: fit(Cohort(torch.zeros(8, 1, 4, 4)), SCALAR), "the same image in every row"),
        (lambda: fit(cohort(20), SCALAR).score(images(2, space=(4, 4))), "1 x 8 x 8, got 1 x 4 x 4"),
        (lambda: fit(cohort(20), SCALAR, batch_size=0), "batch_size: expected at least 1, got 0"),
        (lambda: fit(cohort(20), SCALAR).score(torch.full((2, 1, 8, 8), torch.nan)), "x"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_a_detector_is_a_classifier_whose_logit_is_its_score_in_deviations():
    fitted = fit(cohort(50), MeanDetector(), level=0.2)
    x = images(9, 3)
    logit = fitted.as_classifier()(x)[:, 0]
    s, known = fitted.score(x).score.double(), fitted.calibration
    torch.testing.assert_close(
        logit.double(), (s - conformal_quantile(known, 0.2)) / known.std(correction=0), atol=1e-5, rtol=1e-5
    )
    assert ((logit > 0) == (fitted(x) <= 0.2)).float().mean() > 0.99
    few = fit(cohort(6), MeanDetector(), level=0.01).as_classifier()
    assert few.threshold == pytest.approx(float(fit(cohort(6), MeanDetector()).calibration[-1]))


def test_tensors_and_arrays_of_images_are_taken_like_cohorts():
    x, new = images(20), images(4, seed=1)
    wanted = fit(Cohort(x), SCALAR).score(new).p
    for given in (lambda v: v, lambda v: v.numpy()):
        assert torch.equal(fit(given(x), SCALAR).score(given(new)).p, wanted)
        assert torch.equal(score(given(new), given(x), SCALAR).p, wanted)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda: _check_given(None, None, (), 1), "detector: expected a name"),
        (lambda: _check_given(MeanDetector, None, (), 1), "detector: expected a name"),
        (lambda: _check_given(SCALAR, torch.nn.Flatten(), (), 1), r"generator: .*Denoiser\(network, schedule\)"),
        (lambda: _check_given(SCALAR, "folder", (), 1), "generator: .*got str"),
        (lambda: _check_given(SCALAR, None, torch.nn.Sequential(), 1), "ensemble: expected a list of classifiers"),
    ],
)  # fmt: skip
def test_what_is_no_network_at_all_is_refused_before_it_is_asked(check, said):
    with pytest.raises(InputError, match=said):
        check()


def test_images_without_names_are_the_same_subject_only_where_they_are_the_same_image():
    x = images(30)
    assert fit(x[:20], SCALAR, calibration=x[20:]).score(x[:2]).calibrated == 10
    with pytest.raises(InputError, match=r"calibration: expected other subjects .* got both in \['0', '1'\]"):
        fit(x[:20], SCALAR, calibration=x[18:])


@pytest.mark.parametrize(("detector", "given"), [("mcp", "classifier"), ("ensemble", "ensemble")])
def test_a_classifier_that_draws_at_random_at_rest_is_refused(detector, given):
    def drawn(x):
        kept = torch.nn.functional.dropout(x, 0.5).flatten(1).mean(1)
        return torch.stack([kept, -kept], 1) * 100

    networks = {given: [drawn, drawn] if given == "ensemble" else drawn}
    with pytest.raises(InputError, match=r"expected the same answer whenever an image is shown"):
        fit(cohort(20), detector, **networks)


def test_a_network_that_says_the_same_of_every_image_is_warned_of():
    with pytest.warns(CfxWarning, match="all 10 images got one score"):
        found = fit(cohort(20), "mcp", classifier=lambda x: torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)).score(
            images(3)
        )
    assert found.verdict.tolist() == [int(Membership.IN)] * 3


def test_probabilities_in_the_place_of_logits_are_warned_of():
    def network(x):
        return torch.stack([x.flatten(1).mean(1), -x.flatten(1).mean(1)], 1).mul(9).softmax(1)

    with pytest.warns(CfxWarning, match="probabilities"):
        fit(cohort(60), "energy", classifier=network)
