"""One small classifier as every kind of module a user may bring, and images to ask it about."""

import io

import torch
from torch import Tensor, nn


def images(n: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def plain() -> nn.Sequential:
    """Two logits, in training: its answers are its own only where batch statistics and dropout are off."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 2)
        )
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2)
    return net.train()


def loaded(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """A script as it comes back from its file."""
    file = io.BytesIO()
    torch.jit.save(module, file)
    file.seek(0)
    return torch.jit.load(file)


def exported(net: nn.Module) -> nn.Module:
    batch = {0: torch.export.Dim("batch", min=1, max=512)}
    return torch.export.export(net.eval(), (images(),), dynamic_shapes=(batch,)).module()


def function(net: nn.Module):
    """No module at all."""
    net.eval()
    return lambda x: net(x)


KINDS = {
    "plain": lambda net: net,
    "scripted": torch.jit.script,
    "script from a file": lambda net: loaded(torch.jit.script(net)),
    "trace from a file": lambda net: loaded(torch.jit.trace(net.eval(), images())),
    "frozen script": lambda net: torch.jit.freeze(torch.jit.script(net.eval())),
    "frozen parameters": lambda net: net.requires_grad_(False),
    "exported": exported,
    "beside an exported one": lambda net: nn.Sequential(nn.Dropout(0.5), exported(net), nn.Dropout(0.5)),
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "data parallel": nn.DataParallel,
    "function": function,
}


def state(network) -> tuple[list[bool], list[bool]]:
    """The mode of every part and whether every parameter wants a gradient."""
    if not isinstance(network, nn.Module):
        return [], []
    modes = [m.training for m in network.modules() if hasattr(m, "training")]
    return modes, [p.requires_grad for p in network.parameters()]
