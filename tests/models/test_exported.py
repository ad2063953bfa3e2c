"""Exported networks come back; a file that would run anything but tensor operations is refused before it is read."""

import io
import json
import pickle
import zipfile

import monai.networks.nets as monai
import pytest
import torch
from torch import nn

from cfx.core.errors import CheckpointError, InputError
from cfx.models.exported import read_exported
from tests.models.kinds import images, plain


def export(path, net, x, sizes=None):
    """A network in a file, for any number of images, and sizes if given."""
    free = {0: torch.export.Dim("batch", min=1, max=64), **(sizes or {})}
    with path.open("wb") as stream:
        torch.export.save(torch.export.export(net.eval(), (x,), dynamic_shapes=(free,)), stream)
    return path


class Shapes(nn.Module):
    """Reads sizes, branches on nothing, and pads."""

    def forward(self, x):
        b, c, h, w = x.shape
        y = nn.functional.pad(x, (1, 1, 1, 1)).reshape(b, c, -1)[:, :, : h * w // 2]
        return torch.cat([y.mean(2), y.amax(2)], 1)


def dense():
    return monai.DenseNet121(
        spatial_dims=2, in_channels=1, out_channels=2, init_features=8, growth_rate=4, block_config=(2, 2)
    )


@pytest.mark.parametrize(
    ("make", "sizes"),
    [(plain, False), (dense, False), (Shapes, False), (Shapes, True), (lambda: nn.Sequential(Shapes()), True)],
)
def test_networks_come_back(make, sizes, tmp_path):
    net = make()
    x = images(3) if make is plain else torch.rand(3, 1, 32, 32)
    free = {2: torch.export.Dim("height", min=8, max=640)} if sizes else None
    back = read_exported(export(tmp_path / "net.pt2", net, x, free))
    torch.testing.assert_close(back(x), net(x))
    torch.testing.assert_close(back(x[:1]), net(x[:1]))


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


def pickled(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def edit(change):
    """A change of the JSON of the graph."""

    def changed(name, data):
        if not name.endswith("models/model.json"):
            return data
        graph = json.loads(data)
        change(graph)
        return json.dumps(graph).encode()

    return changed


def nodes(graph):
    return graph["graph_module"]["graph"]["nodes"]


def with_pickled_weight(name, data):
    """A weight that is said to be a pickle, and is one."""
    if name.endswith("model_weights_config.json"):
        config = json.loads(data)
        first = next(iter(config["config"].values()))
        first["use_pickle"] = True
        return json.dumps(config).encode()
    return pickled(Bomb()) if name.endswith("weight_0") else data


EVIL = {
    "inputs": (lambda n, d: pickled((Bomb(),)) if "sample_inputs" in n else d, r"a pickle of print"),
    "weights": (with_pickled_weight, r"a pickle of print"),
    "operator": (
        edit(lambda g: nodes(g)[0].update(target="torch.serialization.os.system")),
        "the operator 'torch.serialization.os.system'",
    ),
    "file": (edit(lambda g: nodes(g)[0].update(target="torch.ops.aten.from_file.default")), "the operator"),
    "library": (edit(lambda g: nodes(g)[0].update(target="torch.ops.mylib.run.default")), "the operator"),
    "guard": (
        edit(lambda g: g.update(guards_code=["print('executed') or L['x'].size()[0] >= 1"])),
        r"the guard .*executed",
    ),
    "expression": (
        edit(lambda g: nodes(g)[0].update(hidden={"expr_str": "exec(chr(112))"})),
        r"the expression 'exec\(chr\(112\)\)'",
    ),
    "attribute": (
        edit(lambda g: nodes(g)[0].update(hidden={"expr_str": "Symbol('s0').__class__"})),
        "the expression",
    ),
    "name": (edit(lambda g: nodes(g)[0].update(name="x): print('executed') #")), "the name"),
    "enumeration": (edit(lambda g: g.update(more='{"__enum__": true, "fqn": "os:x"}')), "an enumeration"),
}


def rewritten(source, target, change, more=None):
    """An archive with some members changed or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, data in (more or {}).items():
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/{name}", data)
    return target


@pytest.mark.parametrize("kind", EVIL)
def test_what_would_run_code_is_refused(kind, tmp_path, capsys):
    change, message = EVIL[kind]
    source = export(tmp_path / "net.pt2", plain(), images(3))
    with pytest.raises(CheckpointError, match=rf"expected a graph of tensor operations, got {message}"):
        read_exported(rewritten(source, tmp_path / "evil.pt2", change))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("data/constants/opaque_obj_0", "an object of its own"),
        ("data/constants/custom_obj_0", "an object of its own"),
        ("data/aotinductor/model/a.wrapper.so", "compiled code"),
        ("data/constants/model.pt", "a pickle of print"),
    ],
)
def test_members_that_are_no_tensors_are_refused(member, message, tmp_path, capsys):
    source = export(tmp_path / "net.pt2", plain(), images(3))
    data = pickled(Bomb()) if member.endswith(".pt") else pickle.dumps(Bomb())
    with pytest.raises(CheckpointError, match=message):
        read_exported(rewritten(source, tmp_path / "evil.pt2", lambda n, d: d, {member: data}))
    assert "executed" not in capsys.readouterr().out


def test_a_damaged_file_is_one_line(tmp_path):
    source = export(tmp_path / "net.pt2", plain(), images(3))
    (tmp_path / "half.pt2").write_bytes(source.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"expected a torch\.export file, "):
        read_exported(tmp_path / "half.pt2")


@pytest.mark.parametrize(("n", "asked"), [(1, 3), (2, 1), (4, 6)])
def test_a_fixed_batch_is_said_with_how_to_free_it(n, asked, tmp_path):
    with (tmp_path / "net.pt2").open("wb") as stream:
        torch.export.save(torch.export.export(plain().eval(), (images(n),)), stream)
    back = read_exported(tmp_path / "net.pt2")
    torch.testing.assert_close(back(images(n)), plain().eval()(images(n)))
    with pytest.raises(InputError, match=rf"batches of exactly {n}, got {asked}; .*dynamic_shapes"):
        back(images(asked))


def test_a_fixed_size_is_said(tmp_path):
    back = read_exported(export(tmp_path / "net.pt2", Shapes(), torch.rand(3, 1, 16, 16)))
    assert back(torch.rand(5, 1, 16, 16)).shape == (5, 2)
    with pytest.raises(InputError, match=r"exported for images of shape \(1, 16, 16\), got \(1, 8, 16\)"):
        back(torch.rand(5, 1, 8, 16))
