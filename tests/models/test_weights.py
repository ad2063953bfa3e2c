"""Files are told apart by what is in them; state dicts are found, fitted and never unpickled beyond tensors."""

import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cfx.core.errors import CheckpointError
from cfx.models.weights import contents, fill, read_script, read_state
from tests.models.kinds import images, plain

OLD = pytest.mark.filterwarnings("ignore:.*torch.jit.(script|save|trace).*:DeprecationWarning")


def write(kind, path):
    """The same small network in a file of some kind, whatever the file is called."""
    net = plain().eval()
    if kind == "safetensors":
        save_file(net.state_dict(), path)
    elif kind == "torchscript":
        torch.jit.save(torch.jit.trace(net, images()), path)
    elif kind == "exported":
        batch = {0: torch.export.Dim("batch", min=1, max=64)}
        with path.open("wb") as stream:
            torch.export.save(torch.export.export(net, (images(),), dynamic_shapes=(batch,)), stream)
    else:
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=kind != "old")
    return path


KINDS = {
    "safetensors": "safetensors", "new": "tensors", "old": "tensors", "torchscript": "torchscript",
    "exported": "exported",
}  # fmt: skip


@OLD
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_holds_is_told_by_its_contents(kind, suffix, tmp_path):
    assert contents(write(kind, tmp_path / f"file{suffix}")) == KINDS[kind]


@pytest.mark.parametrize("data", [b"", b"hello, this is text", b"PK\x03\x04 broken", bytes(100)])
def test_other_files_are_refused(data, tmp_path):
    (tmp_path / "file.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"file\.pt: (expected a safetensors file|cannot be read)"):
        contents(tmp_path / "file.pt")


@pytest.mark.parametrize("kind", ["safetensors", "new", "old"])
def test_a_state_dict_is_read(kind, tmp_path):
    found = read_state(write(kind, tmp_path / "file"))
    assert found.keys() == plain().state_dict().keys()
    assert all(torch.equal(found[k], v) for k, v in plain().state_dict().items())


@OLD
@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_a_whole_network_is_no_state_dict(kind, tmp_path):
    with pytest.raises(CheckpointError, match=f"expected tensors, got a whole network \\({kind}\\)"):
        read_state(write(kind, tmp_path / "file"))


@OLD
def test_a_script_is_loaded_without_a_warning(tmp_path):
    network, x = read_script(write("torchscript", tmp_path / "file")), images()
    torch.testing.assert_close(network(x), plain().eval()(x))


STATE = {"a.weight": torch.ones(2), "a.bias": torch.zeros(2)}
NESTED = [
    ({"epoch": 3, "model": STATE}, "model"),
    ({"epoch": 3, "state_dict": STATE, "optimizer": {"state": {}, "lr": 0.1}}, "state_dict"),
    ({"args": {"lr": 1.0}, "net": {"ema": STATE, "step": 4}}, "net.ema"),
    ({"generator": STATE, "discriminator": STATE}, "generator"),
]


@pytest.mark.parametrize(("saved", "key"), NESTED)
def test_a_nested_state_dict_is_found_by_the_key_that_the_error_names(saved, key, tmp_path):
    torch.save(saved, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=rf"got the keys \['{next(iter(saved))}'.*name the one .*key: {key}"):
        read_state(tmp_path / "file.pt")
    assert read_state(tmp_path / "file.pt", key).keys() == STATE.keys()
    with pytest.raises(CheckpointError, match=r"expected the key 'modle', got the keys \['"):
        read_state(tmp_path / "file.pt", "modle")


@pytest.mark.parametrize("saved", [{"epoch": 3}, [torch.ones(2)], torch.ones(3), {}])
def test_a_file_without_a_state_dict_says_what_it_has(saved, tmp_path):
    torch.save(saved, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=r"expected a state dict \(names to tensors\), got"):
        read_state(tmp_path / "file.pt")


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("saved", "named"),
    [
        (plain(), "torch.nn.modules.container.Sequential"),
        ({"model": STATE, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        ({"model": STATE, "bomb": Bomb()}, "print"),
    ],
)
def test_other_objects_are_named_and_not_unpickled(saved, named, tmp_path, capsys):
    torch.save(saved, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=rf"it also holds {named}, and reading that would run code"):
        read_state(tmp_path / "file.pt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle_is_not_unpickled(protocol, tmp_path, capsys):
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Bomb(), protocol))
    with pytest.raises(CheckpointError, match="expected a file of tensors"):
        read_state(tmp_path / "plain.pkl")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net."])
def test_a_prefix_that_all_names_share_is_taken_off(prefix):
    state = {prefix + name: value for name, value in plain().state_dict().items()}
    torch.manual_seed(9)
    other = nn.Sequential(*(type(m)(1, 4, 3) if isinstance(m, nn.Conv2d) else m for m in plain()))
    filled = fill(other, state, "file").eval()
    torch.testing.assert_close(filled(images()), plain().eval()(images()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "0.bias"}, r"it has 1 tensors .*\(0.bias\), and they have 0"),
        (
            lambda s: s | {"head.weight": torch.ones(1)},
            r"has 0 tensors .*\(none\), and they have 1 .*\(head.weight\)",
        ),
        (lambda s: s | {"0.bias": torch.ones(7)}, "do not fit the network: .*size mismatch for 0.bias"),
    ],
)
def test_weights_of_another_network_are_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        fill(plain(), change(plain().state_dict()), "file")
