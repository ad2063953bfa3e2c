"""One small network of every registered name, for tests of what all of them must do."""

import torch

from cfx.models import build

PATCH = {"name": "patch-unet", "channels": (8, 16), "attention": (False, True), "patch": 2, "features": 4}
SMALL = {
    "unet": {"channels": (8, 16), "attention": (False, True), "head_channels": 8},
    "patch-unet": {"channels": (8, 16), "attention": (False, True), "head_channels": 8, "patch": 2, "features": 4},
    "autoencoder-kl": {"channels": (8, 16), "attention": (False, False), "latent_channels": 2},
    "shape-vae": {"space": (8, 8), "latent": 2, "modes": 4, "centres": 5},
    "cnn": {"channels": (8, 16), "out_channels": 3},
    "convnext": {"channels": (8, 16), "depth": 1, "kernel": 3, "out_channels": 3},
    "residual-unet": {"channels": (8, 16), "out_channels": 2},
    "mask-energy": {"channels": (8, 16), "attention": (False, True), "features": 4, "hidden": 8},
    "mask-ddpm": {"network": PATCH, "schedule": {"num_train_timesteps": 6}},
    "mask-cimd": {"network": PATCH, "schedule": {"num_train_timesteps": 6}},
    "mask-categorical": {"network": PATCH, "schedule": {"num_train_timesteps": 6}},
    "mask-prob-unet": {"network": PATCH, "features": 4},
    "mask-ssn": {"network": PATCH, "features": 4},
    "densenet": {"init_features": 8, "growth_rate": 4, "block_config": (2, 2), "out_channels": 3},
    "monai-diffusion-unet": {
        "out_channels": 1, "channels": (8, 16), "attention_levels": (False, True), "num_res_blocks": 1,
        "num_head_channels": 8, "norm_num_groups": 4,
    },
    "monai-autoencoder-kl": {
        "out_channels": 1, "channels": (8, 16), "attention_levels": (False, False), "num_res_blocks": 1,
        "latent_channels": 2, "norm_num_groups": 4,
    },
    "monai-densenet121": {"out_channels": 3, "init_features": 8, "growth_rate": 4, "block_config": (2, 2)},
    "monai-resnet18": {"num_classes": 3, "widen_factor": 0.125},
    "monai-resnet50": {"num_classes": 3, "widen_factor": 0.125},
    "diffusers-unet2d": {
        "out_channels": 1, "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 4, "layers_per_block": 1,
    },
    "diffusers-autoencoder-kl": {
        "out_channels": 1, "block_out_channels": (8, 16), "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 4, "latent_channels": 2,
    },
}  # fmt: skip
SPACE = {2: (16, 24), 3: (8, 16, 8)}


def keywords(name, dims=2):
    """What builds the small network of that name."""
    axes = {} if name.startswith("diffusers") else {"spatial_dims": dims}
    channels = "n_input_channels" if "resnet" in name else "in_channels"
    return {channels: 1, **axes, **SMALL[name]}


def small(name, dims=2, **more):
    torch.manual_seed(0)
    return build(name, **keywords(name, dims), **more)


def randomise(network):
    """Zero-initialised layers would hide mistakes."""
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return network
