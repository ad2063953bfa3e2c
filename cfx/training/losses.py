"""What training minimises: pure functions, one value a row unless said otherwise, in nats where they are likelihoods.

References: Hang et al. (2023), arXiv 2303.09556 (min-SNR); Kingma and Welling (2014) (the KL term); Milletari et al.
(2016), arXiv 1606.04797 (Dice); van den Oord et al. (2018), arXiv 1807.03748, and Chen et al. (2020), arXiv 2002.05709
(NT-Xent); Lim and Ye (2017), arXiv 1705.02894 (hinge); Lin et al. (2017), arXiv 1708.02002 (focal); Islam and Glocker
(2021), arXiv 2104.05788 (SVLS); van Amersfoort et al. (2020), arXiv 2003.02037 (kernels).
"""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from cfx.core.schedule import Prediction


def squared_error(a: Float[Tensor, "b *rest"], b: Float[Tensor, "b *rest"]) -> Float[Tensor, " b"]:
    """Mean square of a - b over what a row holds."""
    return (a - b).square().flatten(1).mean(1)


def absolute_error(a: Float[Tensor, "b *rest"], b: Float[Tensor, "b *rest"]) -> Float[Tensor, " b"]:
    """Mean of |a - b| over what a row holds: the reconstruction term of a Laplace likelihood, in units of its scale."""
    return (a - b).abs().flatten(1).mean(1)


def min_snr_weight(
    alpha: Float[Tensor, "..."], sigma: Float[Tensor, "..."], prediction: Prediction, gamma: float | None
) -> Float[Tensor, "..."]:
    """Weight on the squared error in prediction space (Hang et al., 2023).

    In image space the weight is min(SNR, gamma) with SNR = alpha^2 / sigma^2. An error of the image is an error of the
    noise times sigma / alpha, and of v times sigma; so the weight here is min(SNR, gamma) over SNR for the noise,
    over SNR + 1 for v, and over 1 for the image. Written so that SNR = infinity and 0 stay finite.

    Args:
        alpha: Signal levels.
        sigma: Noise levels, positive.
        prediction: What the network returns.
        gamma: The clip; None gives ones.
    """
    if gamma is None:
        return torch.ones_like(alpha)
    clipped = torch.minimum((alpha / sigma).square(), torch.full_like(alpha, gamma))
    match prediction:
        case "epsilon":
            return torch.minimum(torch.ones_like(alpha), gamma * (sigma / alpha).square())
        case "v":
            return clipped * sigma.square()
        case "x0":
            return clipped


def kl_standard(mean: Float[Tensor, "b *rest"], std: Float[Tensor, "b *rest"]) -> Float[Tensor, " b"]:
    """Kullback-Leibler divergence of N(mean, std^2) to a standard normal, in nats, summed over the latent of a row."""
    each = 0.5 * (mean.square() + std.square() - 1) - torch.log(std.clamp_min(1e-10))
    return each.flatten(1).sum(1)


def cross_entropy(logits: Float[Tensor, "b k"], y: Int[Tensor, " b"], smoothing: float = 0.0) -> Float[Tensor, " b"]:
    """-sum_k q_k log softmax(logits)_k, where q is 1 - smoothing on class y plus smoothing / k on every class.

    Papers also write eps / (k - 1) on every other class, which is another eps: smoothing = eps k / (k - 1).
    """
    return functional.cross_entropy(logits, y, label_smoothing=smoothing, reduction="none")


def focal(logits: Float[Tensor, "b k"], y: Int[Tensor, " b"], gamma: float) -> Float[Tensor, " b"]:
    """-(1 - p_y)^gamma log p_y: rows that are right already count less; gamma = 0 is the cross-entropy.

    Of the class of the row alone; MONAI's is the mean over k classes, a k-th of it.
    """
    log_p = logits.log_softmax(1).gather(1, y[:, None])[:, 0]
    return -((-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny) ** gamma) * log_p


def binary_cross_entropy(
    logits: Float[Tensor, "b *rest"], y: Shaped[Tensor, "b *rest"], smoothing: float = 0.0
) -> Float[Tensor, " b"]:
    """Cross-entropy of independent 0/1 labels or voxels, mean over a row's; smoothing moves both labels to 1/2."""
    target = y.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return each.flatten(1).mean(1)


def svls(mask: Shaped[Tensor, "b k *space"]) -> Float[Tensor, "b k *space"]:
    """Labels smoothed across the boundary of a region alone (Islam, Glocker 2021): SVLS, in two or three dimensions.

    Every voxel becomes half its own label and half the mean of its neighbours, weighted by exp(-d^2 / 2) at distance d,
    in the 3 x 3 (x 3) voxels about it. Beyond the border of the image labels go on, so that one-hot labels add up to 1
    everywhere, and what lies inside a region stays 0 or 1.

    Args:
        mask: 0/1 labels, a channel a class or region.
    """
    dims = mask.ndim - 2
    line = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2).to(mask.device)
    kernel = line
    for _ in range(dims - 1):
        kernel = kernel[..., None] * line
    kernel[(1,) * dims] = 0
    kernel = kernel / (2 * kernel.sum())
    kernel[(1,) * dims] = 0.5
    padded = functional.pad(mask.float().flatten(0, 1)[:, None], [1, 1] * dims, mode="replicate")
    convolve = functional.conv2d if dims == 2 else functional.conv3d
    smooth: Tensor = convolve(padded, kernel[None, None]).view(mask.shape)
    return smooth


def kernel_entropy(log_k: Float[Tensor, "b k"], y: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Binary cross-entropy of kernels K in (0, 1], given as logarithms, with 1 for class y and 0 for others; a mean.

    Args:
        log_k: log K, at most 0; above -1e-6 the gradient of log (1 - K) is zero.
        y: Classes.
    """
    own = functional.one_hot(y, log_k.shape[1]).bool()
    right = torch.where(own, log_k, torch.log(-torch.expm1(log_k.clamp_max(-1e-6))))
    return -right.mean(1)


def unit_slope(total: Float[Tensor, " b"], x: Float[Tensor, "b c *space"]) -> Float[Tensor, " b"]:
    """(|d total_i / d x_i| - 1)^2, the two-sided penalty of a gradient, differentiably.

    Args:
        total: A value a row that depends on that row of x.
        x: Images with `requires_grad`.
    """
    (g,) = torch.autograd.grad(total.sum(), x, create_graph=True)
    length: Tensor = g.flatten(1).norm(dim=1)
    return (length - 1).square()


def soft_dice(
    p: Float[Tensor, "b k *space"], mask: Shaped[Tensor, "b k *space"], smooth: float = 1.0
) -> Float[Tensor, " b"]:
    """Overlap (2 sum p m + smooth) / (sum p + sum m + smooth) of probabilities with 0/1 masks, mean over regions.

    1 for equal masks, empty ones included. Its complement is the Dice loss.

    Args:
        p: Probability of every region at every voxel.
        mask: Where the regions are.
        smooth: Voxels added to both areas, so that an empty region has a gradient.
    """
    m = mask.to(p.dtype)
    both, either = (v.flatten(2).sum(2) for v in (p * m, p + m))
    return ((2 * both + smooth) / (either + smooth)).mean(1)


def nt_xent(
    z: Float[Tensor, "b d"],
    positive: Float[Tensor, "b d"],
    keys: Float[Tensor, "m d"],
    own: Bool[Tensor, "b m"],
    temperature: float,
) -> Float[Tensor, " b"]:
    """Normalised, temperature-scaled cross-entropy of the positive among positive and keys.

    With s the cosine over tau: -log of exp s(z, z+) / [exp s(z, z+) + sum_{j not own} exp s(z, k_j)]. With 2 b views
    of a batch as keys, those of a row being its own, this is the loss of SimCLR.

    Args:
        z: Embeddings.
        positive: Embedding of another view of each.
        keys: Embeddings to be told apart from.
        own: Which keys are views of the row itself and are left out.
        temperature: tau.
    """
    z, positive, keys = (functional.normalize(v, dim=1) for v in (z, positive, keys))
    near = (z * positive).sum(1) / temperature
    far = (z @ keys.T / temperature).masked_fill(own, -torch.inf)
    return torch.cat([near[:, None], far], 1).logsumexp(1) - near


def hinge(real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """What a discriminator minimises: verdicts above 1 on real images and below -1 on others cost nothing; a mean."""
    return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())
