"""The metrics of this room in the catalogue: what tables, pages and docs call them and say of them."""

from cfx.display.catalogue import Metric, register

register(
    Metric("n", "n", "Rows in the result; none is dropped.", "", ".0f"),
    Metric(
        "competence",
        "classifier's accuracy",
        "Balanced accuracy of the classifier on the labelled reference images, which are not those explained.",
        "higher",
    ),
    Metric(
        "auc",
        "classifier's AUC",
        "Area under its ROC curve on the reference; of several classes the mean over each against the rest.",
        "higher",
    ),
    Metric(
        "ece",
        "classifier's ECE",
        "Expected calibration error of its most probable class on the reference: 15 bins of equal width.",
        "lower",
    ),
    Metric(
        "data_competence",
        "accuracy on the data",
        "Balanced accuracy of the classifier on the images explained, where these are labelled.",
        "higher",
    ),
    Metric("data_auc", "AUC on the data", "The same area on the images explained.", "higher"),
    Metric("data_ece", "ECE on the data", "The same calibration error on the images explained.", "lower"),
    Metric(
        "denoising_ratio",
        "generator's error / trivial",
        "Largest denoising error of the generator on these images over that of the best linear estimate of single "
        "pixels; one that knows such images is below 1.",
        "lower",
    ),
    Metric("validity", "valid", "Share of all rows whose final image reaches the margin asked for.", "higher"),
    Metric(
        "oracle_validity",
        "valid to the oracle",
        "Share of all rows that an independent oracle also gives to the target class after the edit.",
        "higher",
    ),
    Metric(
        "stable",
        "stable",
        "Share of the rows that reached the margin whose decision survives re-noising and denoising.",
        "higher",
    ),
    Metric(
        "read_share",
        "read share",
        "Share of the edit (of its energy) in the part that the classifier reads.",
    ),
    Metric(
        "read_alone",
        "read part alone",
        "Share of the classifier's change of mind that the read part of the edit brings by itself.",
    ),
    Metric(
        "rest_alone",
        "rest alone",
        "Share of that change which the rest of the edit brings by itself; near 0 the generator only adds it.",
    ),
    Metric(
        "reading_carried",
        "carried",
        "Share of the edits of which the classifier reads only a part, while the rest does nothing: the generator "
        "carries it along.",
    ),
    Metric(
        "consent",
        "consent",
        "How far the classifier goes along with the generator's difference between the classes, beyond what it does "
        "when that difference is displaced: 1 full, near 0 where it reads something else.",
    ),
    Metric(
        "gate_p",
        "gate's p",
        "Median p-value of the edited images by the gate: small where they are out of distribution, about a half where "
        "they are as ordinary as real ones.",
        "",
        ".2f",
    ),
    Metric("gate_p_before", "gate's p before", "The same of these images before the edit.", "", ".2f"),
    Metric(
        "gate_out",
        "out of distribution",
        "Share of the edited images that are out of distribution to the gate, p at most .05: of real ones that are in "
        "about one in twenty.",
        "lower",
    ),
    Metric("gate_out_before", "out before", "The same share of these images before the edit."),
    Metric("probability_change", "change of p(target)", "Mean rise of the target class's probability.", "higher"),
    Metric("l1", "L1", "Mean absolute change per pixel, on the [-1, 1] scale.", "lower", ".4f"),
    Metric("l2", "L2", "Root-mean-square change per pixel, on the [-1, 1] scale.", "lower", ".4f"),
    Metric("edited_share", "edited share", "Share of the image that was changed."),
    Metric(
        "changed_share",
        "changed share",
        "Share of the pixels that changed by more than 0.05, about what the eye can tell.",
    ),
    Metric("lpips", "LPIPS", "LPIPS perceptual distance between input and counterfactual.", "lower", ".4f"),
    Metric(
        "feature_distance",
        "feature distance",
        "Distance in the feature maps of the oracle network (not LPIPS).",
        "lower",
        ".4f",
    ),
    Metric(
        "error_to_truth",
        "error to truth",
        "Root-mean-square distance from the counterfactual to the true counterfactual (simulated data).",
        "lower",
        ".4f",
    ),
    Metric(
        "error_to_truth_no_edit",
        "error of no edit",
        "The same distance for the unedited input: what doing nothing scores.",
        "",
        ".4f",
    ),
    Metric(
        "error_to_truth_ratio",
        "error to truth / no edit",
        "Error to the truth over that of no edit; below 1 the edit moves towards the truth.",
        "lower",
    ),
    Metric(
        "cosine_to_truth",
        "cosine to truth",
        "Cosine between the edit and the true effect; 1 is the same pattern.",
        "higher",
    ),
    Metric("edit_energy", "edit energy", "Size of the edit over that of the true effect (root mean square)."),
    Metric(
        "localisation_auprc",
        "AUPRC",
        "Area under the precision-recall curve of |change| against the true effect.",
        "higher",
    ),
    Metric(
        "localisation_base_rate",
        "base rate",
        "What a random map would score there: the share of pixels with a true effect.",
    ),
    Metric(
        "lesion_dice",
        "lesion Dice",
        "Dice overlap of the changed pixels and the lesions that should have gone.",
        "higher",
    ),
    Metric(
        "lesion_dice_truth",
        "lesion Dice of the truth",
        "What the true counterfactual itself scores there; disease changes more than lesions.",
    ),
    Metric(
        "nfe_unet_forward",
        "generator evaluations",
        "Evaluations of the generator's network per image, strength search included.",
        "lower",
        ".1f",
    ),
    Metric("nfe_unet_forward_max", "most evaluations", "The most evaluations any image took.", "lower", ".0f"),
    Metric(
        "nfe_unet_backward",
        "generator gradients",
        "Back-propagations through the generator per image.",
        "lower",
        ".1f",
    ),
    Metric("nfe_classifier", "classifier evaluations", "Classifier evaluations per image.", "lower", ".1f"),
    Metric("nfe_classifier_backward", "classifier gradients", "Classifier gradients per image.", "lower", ".1f"),
    Metric("seconds_per_image", "s / image", "Wall-clock seconds per image.", "lower", ".2f"),
    Metric("cout", "COUT", "Rise of p(target) less that of p(source) as the edit is pasted in.", "higher"),
    Metric(
        "frechet", "Frechet distance to real", "Split Frechet distance to real images of the target class.", "lower"
    ),
    Metric(
        "kernel",
        "kernel distance to real",
        "Split squared MMD to real images of the target class, in the oracle's features.",
        "lower",
    ),
    Metric(
        "nearest_real",
        "distance to the nearest real",
        "Distance of the edited image to the nearest reference image, over that of reference images to each other, or "
        "that of the image before if it was farther; about 1 where it is as near to real images as they are.",
        "lower",
    ),
    Metric(
        "latent_divergence",
        "latent divergence",
        "How far an autoencoder's code of the edit is from those of real images.",
        "lower",
    ),
    Metric("composition", "composition", "Largest change of a pixel after ten null edits in a row.", "lower", ".1e"),
    Metric(
        "reversibility",
        "reversibility",
        "Root-mean-square distance between the image and the counterfactual of its counterfactual.",
        "lower",
        ".4f",
    ),
    Metric("null_edit_error", "null edit error", "Largest pixel change of the method's null edit.", "lower", ".1e"),
    Metric(
        "outside_mask_error",
        "change outside the mask",
        "Largest change outside the edited region; zero by construction.",
        "lower",
        ".1e",
    ),
)
