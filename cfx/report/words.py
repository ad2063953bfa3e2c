"""What the report says in words: the meaning of every verdict and of every metric."""

from typing import Final

from cfx.counterfactual.result import Verdict

# Order of the report: what went wrong comes first.
ORDER: Final = (Verdict.REFUSED, Verdict.UNSTABLE, Verdict.BUDGET, Verdict.FLIPPED, Verdict.ALREADY)

METRICS: Final[dict[str, str]] = {
    "n": "Rows in the result; none is dropped.",
    "validity": "Share of all rows whose final image reaches the margin asked for, checked by the classifier.",
    "oracle_validity": "Share of all rows that an independent oracle also gives to the target class after the edit.",
    "stable": "Share of all rows whose decision survives re-noising and one denoising step.",
    "edited_share": "Share of the image that was changed.",
    "changed_share": "Share of the pixels that changed by more than 0.05, about what the eye can tell.",
    "probability_change": "Mean rise of the target class's probability.",
    "feature_distance": "Distance in the feature maps of the oracle network (not LPIPS).",
    "l1": "Mean absolute change per pixel, on the [-1, 1] scale.",
    "l2": "Root-mean-square change per pixel, on the [-1, 1] scale.",
    "error_to_truth": "Root-mean-square distance from the counterfactual to the true counterfactual (simulated data).",
    "error_to_truth_no_edit": "The same distance for the unedited input: what doing nothing scores.",
    "error_to_truth_ratio": "Error to the truth over that of no edit; below 1 the edit moves towards the truth.",
    "cosine_to_truth": "Cosine between the edit and the true effect; 1 is the same pattern.",
    "edit_energy": "Size of the edit over that of the true effect (root mean square).",
    "lesion_dice": "Dice overlap of the changed pixels and the lesions that should have gone.",
    "lesion_dice_truth": "What the true counterfactual itself scores there; disease changes more than lesions.",
    "null_edit_error": "Largest pixel change when no guidance is applied; ideally zero.",
    "localisation_auprc": "Area under the precision-recall curve of |change| against the true effect.",
    "localisation_base_rate": "What a random map would score there: the share of pixels with a true effect.",
    "nfe_unet_forward": "Evaluations of the generator's network per image, strength search included.",
    "nfe_unet_forward_max": "The most evaluations any image took.",
    "nfe_unet_backward": "Back-propagations through the generator per image.",
    "nfe_classifier": "Classifier evaluations per image.",
    "nfe_classifier_backward": "Classifier gradients per image.",
    "seconds": "Wall-clock seconds for all rows.",
    "seconds_per_image": "Wall-clock seconds per image.",
    "peak_memory_mb": "Peak memory in megabytes.",
    "outside_mask_error": "Largest change outside the edited region; zero by construction.",
    "lpips": "LPIPS perceptual distance between input and counterfactual.",
    "perceptual": "Perceptual distance between input and counterfactual, in features of the named network.",
}


def meaning(metric: str) -> str:
    """One line on a metric, also for `boundary_validity` or `validity_boundary`; empty if unknown."""
    for depth in ("boundary", "typical"):
        bare = metric.removeprefix(f"{depth}_").removesuffix(f"_{depth}")
        if bare != metric and bare in METRICS:
            return f"{METRICS[bare]} At depth {depth}."
    return METRICS.get(metric, "")
