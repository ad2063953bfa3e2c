"""ODIN is its authors', and chooses its step without seeing anything else than the distribution."""

import torch

from cfx.models.judge import Judge
from cfx.ood import build_detector, fit
from cfx.ood.confidence.perturbation import STEPS
from cfx.ood.detector import Learn, Tools
from tests.ood.classifiers import cnn, labelled
from tests.ood.detectors import images
from tests.ood.oracles import theirs


def test_it_is_pytorch_oods():
    x, net = images(9), cnn().eval()
    for temperature, eps in ((1000.0, 0.0014), (1.0, 0.05)):
        found = fit(labelled(12), build_detector("odin", temperature=temperature, eps=eps), classifier=net).score(x)
        other = theirs("ODIN", net, eps=eps, temperature=temperature)(x).detach()
        torch.testing.assert_close(found.score - 1 / 3, other, atol=1e-6, rtol=1e-6)


def test_without_a_step_and_a_temperature_it_has_the_order_of_mcp():
    x, net = images(20), cnn()
    odin = fit(labelled(12), build_detector("odin", temperature=1.0, eps=0.0), classifier=net).score(x)
    mcp = fit(labelled(12), "mcp", classifier=net).score(x)
    torch.testing.assert_close(odin.score + 2 / 3, mcp.score, atol=1e-6, rtol=1e-5)
    assert odin.nfe_classifier_backward.tolist() == [0] * 20


def test_at_a_high_temperature_the_score_is_that_of_the_logits():
    """1 / K - S tends to -(max l - mean l) / K T, which single precision of S itself would lose."""
    x, net = images(9), cnn().eval()
    found = fit(labelled(12), build_detector("odin", temperature=1e7, eps=0.0), classifier=net).score(x)
    logits = net(x).detach()
    torch.testing.assert_close(3e7 * found.score, logits.mean(1) - logits.amax(1), atol=1e-4, rtol=1e-4)


def test_the_step_is_the_one_of_most_confidence_and_its_cost_is_known():
    net, cohort = cnn().eval(), labelled(24)
    chosen = build_detector("odin").fit(Learn(cohort, Tools(classifier=Judge(net)))).eps
    means = []
    for eps in STEPS:
        fitted = fit(labelled(12), build_detector("odin", eps=eps), classifier=net)
        means.append(float(fitted.score(cohort).score.double().mean()))
    assert chosen == STEPS[means.index(min(means))]
    found = fit(cohort, "odin", classifier=net).score(images(3))
    assert (found.nfe_classifier.tolist(), found.nfe_classifier_backward.tolist()) == ([2] * 3, [1] * 3)
