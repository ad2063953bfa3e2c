"""Weights of the archived monai-generative package give the same function in MONAI."""

import pickle
import warnings

import pytest
import torch
from safetensors.torch import save_file

from cfx.core.errors import CheckpointError, InputError
from cfx.models.interop import load_monai_generative

UNET = {
    "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "num_channels": (8, 16), "num_res_blocks": 1,
    "attention_levels": (False, True), "num_head_channels": 8, "norm_num_groups": 4, "num_class_embeds": 3,
}  # fmt: skip
CROSS = {k: v for k, v in UNET.items() if k != "num_class_embeds"} | {
    "with_conditioning": True,
    "cross_attention_dim": 5,
}
VAE = {
    "spatial_dims": 3, "in_channels": 1, "out_channels": 1, "num_channels": (8, 16), "num_res_blocks": 1,
    "attention_levels": (False, True), "latent_channels": 3, "norm_num_groups": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def generative():
    """The real package; only its networks still import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("generative.networks.nets")


def randomised(network):
    """The output convolution starts at zero, which would make any two networks equal."""
    torch.manual_seed(0)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return network.eval()


@pytest.mark.parametrize("config", [UNET, CROSS], ids=["labels", "cross-attention"])
def test_unet_gives_equal_outputs(generative, config, capsys):
    old = randomised(generative.DiffusionModelUNet(**config))
    new = load_monai_generative("unet", old.state_dict(), config)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 700])
    more = {"class_labels": torch.tensor([0, 2])} if config is UNET else {"context": torch.randn(2, 1, 5)}
    expected = old(x, timesteps=t, **more)
    assert expected.std() > 0.05
    assert torch.allclose(new(x, timesteps=t, **more), expected, atol=1e-5, rtol=1e-5)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_autoencoder_from_a_file_gives_equal_outputs(generative, tmp_path, suffix):
    old = randomised(generative.AutoencoderKL(**VAE))
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(old.state_dict(), path)
    else:
        save_file(old.state_dict(), path)
    new = load_monai_generative("autoencoder-kl", path, VAE)
    x = torch.randn(1, 1, 8, 8, 8)
    for mine, theirs in zip(new.encode(x), old.encode(x), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5, rtol=1e-5)
    z = old.encode(x)[0]
    assert old.decode(z).std() > 0.05
    assert torch.allclose(new.decode(z), old.decode(z), atol=1e-5, rtol=1e-5)


def test_wrong_inputs_are_named(tmp_path):
    with pytest.raises(InputError, match="kind: expected one of"):
        load_monai_generative("vqvae", {}, {})
    with pytest.raises(InputError, match=r"config: .*widths"):
        load_monai_generative("unet", {}, {"widths": 3})
    with pytest.raises(CheckpointError, match="expected those of a monai-generative unet"):
        load_monai_generative("unet", {"conv_in.conv.weight": torch.zeros(1)}, UNET)


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_is_not_executed(tmp_path, capsys):
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(CheckpointError, match=r"w\.pt: expected a file of tensors"):
        load_monai_generative("unet", tmp_path / "w.pt", UNET)
    assert "executed" not in capsys.readouterr().out
