"""The metrics of calibration and of sets in the catalogue: what tables, pages and docs call them and say of them."""

from cfx.display.catalogue import Metric, register

register(
    Metric("nll", "NLL", "Mean -log of the probability given to the class that came true, in nats.", "lower"),
    Metric("brier", "Brier", "Mean squared error of the probabilities, the mean over classes.", "lower", ".4f"),
    Metric("ece_bins", "ECE (bins alike)", "The same gap, every filled bin alike; also called ACE.", "lower", ".4f"),
    Metric("classwise_ece", "classwise ECE", "The same gap of every class's own probability; a mean.", "lower", ".4f"),
    Metric(
        "ece_debiased",
        "debiased error",
        "Root of the squared gap without the bias of finite samples, with its sign; about 0 if calibrated.",
        "lower",
        ".4f",
    ),
    Metric(
        "error_to_true_p",
        "error to the true p",
        "Half the sum of |p - true p| over the classes, a mean over rows; the truth is known of simulated rows alone.",
        "lower",
    ),
    Metric(
        "coverage", "coverage", "Share of the sets or intervals that hold the truth; the level is promised on average."
    ),
    Metric("coverage_band_low", "band from", "Lower end of the band that the coverage is in 95 % of the time."),
    Metric("coverage_band_high", "band to", "Upper end of that band."),
    Metric("set_size", "set size", "Mean number of classes in a set.", "lower", ".2f"),
)
