"""One small network of every registered name, for tests of what all of them must do."""

import torch

from cfx.models import build

SMALL = {
    "unet": {"channels": (8, 16), "attention": (False, True), "head_channels": 8},
    "patch-unet": {"channels": (8, 16), "attention": (False, True), "head_channels": 8, "patch": 2, "features": 4},
    "autoencoder-kl": {"channels": (8, 16), "attention": (False, False), "latent_channels": 2},
    "shape-vae": {"space": (8, 8), "latent": 2, "modes": 4, "centres": 5},
    "cnn": {"channels": (8, 16), "out_channels": 3},
    "convnext": {"channels": (8, 16), "depth": 1, "kernel": 3, "out_channels": 3},
    "residual-unet": {"channels": (8, 16), "out_channels": 2},
    "densenet": {"init_features": 8, "growth_rate": 4, "block_config": (2, 2), "out_channels": 3},
}
SPACE = {2: (16, 24), 3: (8, 16, 8)}


def small(name, dims=2, **more):
    torch.manual_seed(0)
    return build(name, spatial_dims=dims, in_channels=1, **SMALL[name], **more)


def randomise(network):
    """Zero-initialised layers would hide mistakes."""
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return network
