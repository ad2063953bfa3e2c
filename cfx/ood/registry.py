"""Detectors by name; a detector's module is imported when it is first asked for."""

from dataclasses import fields
from importlib import import_module

from cfx.core.errors import InputError
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
        InputError: an unknown name or setting.
    """
    if name not in DETECTORS:
        raise InputError(f"detector: expected one of {list(DETECTORS)}, got {name!r}")
    module, kind = DETECTORS[name].split(":")
    detector = getattr(import_module(f"cfx.ood.{module}"), kind)
    known = [f.name for f in fields(detector)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise InputError(f"{name}: expected settings among {known}, got {unknown}")
    try:
        made: Detector = detector(**settings)
    except TypeError as error:  # text where a number belongs, say
        raise InputError(f"{name}: expected settings like those of {detector()}, got {settings}") from error
    return made
