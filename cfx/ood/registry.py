"""Detectors by name; a detector's module is imported when it is first asked for."""

from cfx.core.named import build
from cfx.ood.detector import Detector

DETECTORS = {
    "denoising": "denoising:Denoising",
    "denoising-once": "denoising:DenoisingOnce",
    "cascade": "cascade:Cascade",
    "mcp": "confidence.mcp:Mcp",
    "mc-dropout": "confidence.mc_dropout:McDropout",
    "ensemble": "confidence.ensemble:Ensemble",
    "energy": "confidence.energy:Energy",
    "odin": "confidence.odin:Odin",
    "godin": "confidence.godin:Godin",
    "mahalanobis": "distance.mahalanobis:Mahalanobis",
    "knn": "distance.knn:Knn",
    "vim": "distance.vim:Vim",
    "duq": "distance.duq:Duq",
    "vae": "reconstruction.vae:VaeError",
    "vae-elbo": "reconstruction.vae_elbo:VaeElbo",
    "vae-mahalanobis": "reconstruction.vae_mahalanobis:VaeMahalanobis",
    "likelihood-regret": "reconstruction.likelihood_regret:LikelihoodRegret",
    "typicality": "reconstruction.typicality:Typicality",
    "multi-start": "reconstruction.multi_start:MultiStart",
    "lift-map-detect": "reconstruction.lift_map_detect:LiftMapDetect",
    "simplex": "reconstruction.simplex:Simplex",
    "projection-regret": "reconstruction.projection_regret:ProjectionRegret",
    "trajectory-curvature": "reconstruction.trajectory_curvature:TrajectoryCurvature",
    "msma": "reconstruction.msma:Msma",
    "diffpath": "reconstruction.diffpath:DiffPath",
}
"""Name of each detector, and where under `cfx.ood` it is."""


def build_detector(name: str, **settings: object) -> Detector:
    """A detector with its usual settings, or these.

    Raises:
        InputError: an unknown name or setting, or settings of another type.
    """
    made: Detector = build("detector", DETECTORS, "cfx.ood", name, settings)
    return made
