"""Does normalisation take brain shape away? Probes of what is left, and the reliance of classifiers trained on it.

`.venv/bin/python docs/devdocs/normalise.py` prints the tables of docs/devdocs/normalise.md; about half an hour on one
core. Networks are kept in runs/normalise.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch import Tensor

from cfx.confounder.intervention import measure
from cfx.confounder.plan import Plan
from cfx.confounder.planted import Toggle
from cfx.confounder.probes.features import view
from cfx.confounder.probes.probe import equivalent, probe
from cfx.confounder.reliance import Reliance, decide
from cfx.confounder.shape.erasure import ShapeFree
from cfx.confounder.shape.normalise import Normaliser, mean_shape
from cfx.confounder.swap import ShapeSwap, Then
from cfx.core.cohort import Cohort
from cfx.core.distance import solid
from cfx.data import BrainConfig, load_cohort
from cfx.data.brain import Confounder, Population
from cfx.training import check_config
from cfx.training.repeats import train_seeds

ROOT = Path(__file__).parent.parent.parent
SEED = 71  # subjects of the evaluation; the method was chosen on seed 6
ROWS = 19_200  # images of other subjects that erasure is fitted on
NETWORK_ROWS = 2400  # training images of the classifiers, in which shape equals the disease in nine of ten


def brains(n: int, start: int, q: float, seed: int = SEED) -> Cohort:
    """Brains with the planted shape."""
    return load_cohort(BrainConfig(n=n, seed=seed, start=start, confounders=(Confounder(kind="shape", q=q),)))


def probes(fits: Mapping[str, ShapeFree], normaliser: Normaliser) -> list[str]:
    """What each view of test images knows of the planted shape, where it is independent of the disease."""
    cohort = brains(1600, 200_000, 0.5)
    assert cohort.mask is not None
    assert cohort.y is not None
    shape = (cohort.covariates["planted_shape"] > 0).long()
    parts = [normaliser(cohort.x[i : i + 100], cohort.mask[i : i + 100]) for i in range(0, len(cohort), 100)]
    warped, log_jacobian = torch.cat([p.x for p in parts]), torch.cat([p.log_jacobian for p in parts])
    views = {
        "image as it is": cohort.x, "support, normalised": (warped > -1).float(), "image, normalised": warped,
        "log-Jacobian of the warp": log_jacobian,
    }  # fmt: skip
    views |= {f"image, erased ({name})": free.cohort(cohort).x for name, free in fits.items()}
    lines = ["| view | BA of the shape | p | equivalent to chance (0.05) | BA of the disease |", "|---" * 5 + "|"]
    for name, x in views.items():
        found = probe(view(x, name), shape, repeats=2, permutations=199)
        ba, disease = found.scores["ba"], probe(view(x, name), cohort.y, repeats=1, permutations=1).scores["ba"]
        proof = "yes" if equivalent(found) else "no"
        reads = f"{ba.value:.3f} [{ba.low:.3f}, {ba.high:.3f}] | {found.p_value:.3f} | {proof} | {disease.value:.3f}"
        lines.append(f"| {name} | {reads} |")
    return lines


def exact(then: Then | None) -> Toggle:
    """The exact intervention: the same subjects rendered with either planted shape, then sent through the pipeline."""
    config = BrainConfig(n=192, seed=SEED, confounders=(Confounder(kind="shape", q=0.9),))
    people, index = Population(config), torch.arange(config.n)
    factors = people.factors(index)

    def image(amplitude: Tensor) -> Tensor:
        shown = people.render(replace(factors, planted={"shape": amplitude}))
        return shown.x if then is None else then(shown.x, shown.brain)

    one = torch.ones(config.n)
    return Toggle(people.labels(index), image(factors.planted["shape"]), image(-one), image(one))


def reliance(name: str, train: Cohort, then: Then | None) -> tuple[Reliance, Reliance]:
    """Shape reliance of a whole pipeline, classifier and what comes before it: by shape transfer, and exactly."""
    values = yaml.safe_load((ROOT / "configs/audit/brain64.yaml").read_text())["train"]
    values |= {"data": None, "out": str(ROOT / "runs/normalise" / name)}
    networks = train_seeds(check_config(values), 8, train)
    plan = Plan(confounder="shape", doses=())
    swap = ShapeSwap.of(brains(192, 0, 0.9), brains(512, 10_000, 0.9), then=then)
    return decide(measure(networks, swap), plan), decide(measure(networks, exact(then)), plan)


def classifiers(free: ShapeFree, train: Cohort) -> list[str]:
    """How far classifiers of disease rely on shape behind each pipeline."""
    pipelines: dict[str, tuple[str, Cohort, Then | None]] = {
        "none": ("plain", train, None),
        "normalised": ("normalised", free.normaliser.cohort(train), lambda x, mask: free.normaliser(x, mask).x),
        "normalised, traces erased": ("erased", free.cohort(train), free),
    }
    lines = ["| before the network | intervention | effect (logits) | margin | BA, own to other | verdict |"]
    lines.append("|---" * 6 + "|")
    for name, (folder, cohort, then) in pipelines.items():
        for how, r in zip(("transfer", "exact"), reliance(folder, cohort, then), strict=True):
            effect = f"{r.effect.value:+.2f} [{r.effect.low:+.2f}, {r.effect.high:+.2f}]"
            ba = f"{r.accuracy['same']:.3f} to {r.accuracy['opposite']:.3f}"
            lines.append(f"| {name} | {how} | {effect} | {r.margin:.2f} | {ba} | {r.verdict} |")
    return lines


def main() -> None:
    """Print the tables."""
    train = brains(NETWORK_ROWS, 700_000, 0.9, seed=1)
    assert train.mask is not None
    normaliser = Normaliser(mean_shape(solid(train.mask)))
    reference = brains(ROWS, 900_000, 0.5, seed=1)
    fits = {f"{n} reference subjects": ShapeFree.fit(reference[:n], normaliser) for n in (2400, ROWS)}
    print("\n".join(classifiers(fits[f"{ROWS} reference subjects"], train)), flush=True)
    fits[f"{ROWS} subjects, shape going with disease"] = ShapeFree.fit(brains(ROWS, 700_000, 0.9, seed=1), normaliser)
    print("\n" + "\n".join(probes(fits, normaliser)), flush=True)


if __name__ == "__main__":
    main()
