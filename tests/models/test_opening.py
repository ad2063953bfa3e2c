"""Every kind of network opens for its role and answers as it does by hand; what does not suit is one line."""

import sys
from inspect import unwrap

import pytest
import torch
from safetensors.torch import save_file

import cfx
from cfx.core.denoiser import Denoiser
from cfx.core.errors import CfxError, InputError
from cfx.models import Output, Pixels, adapt, load, save
from cfx.models.judge import Judge
from cfx.models.latent import LatentDiffusion
from cfx.models.opening import NetworkSpec, open_network, spec_of
from cfx.models.regressor import Regressor
from cfx.models.wrappers import Finding, Near
from tests.models.kinds import images, plain
from tests.models.networks import keywords, randomise, small
from tests.models.test_weights import write

OLD = pytest.mark.filterwarnings("ignore:.*torch.jit.(script|save|trace).*:DeprecationWarning")
MODULE = """
import torch
from tests.models.kinds import plain

def make(seed=None):
    if seed is not None:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2))
    return plain()

def number():
    return 3

def broken():
    raise ZeroDivisionError("no rows")

ready = plain()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the current directory, which is not on the path."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def expected(x=None):
    with torch.no_grad():
        return plain().eval()(images() if x is None else x)


@pytest.mark.parametrize("name", ["make", "ready"])
def test_a_callable_of_a_module_in_the_current_directory(module, name):
    found = open_network(f"{module}:{name}")
    assert not found.training
    torch.testing.assert_close(found(images()), expected())


def test_a_callable_takes_keywords(module):
    spec = {"path": f"{module}:make", "keywords": {"seed": 4}}
    assert torch.equal(open_network(spec)[1].weight, open_network(spec)[1].weight)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{}:number", "oracle: expected .*:number to return a torch module, got int"),
        ("{}:broken", "oracle: .*:broken failed when called: no rows"),
        ("{}:nothing", "oracle: expected nothing in the module"),
        ("no_such_module_at_all:make", "oracle: expected make in the module no_such_module_at_all, No module named"),
        ("nowhere/at/all", "oracle: nothing at 'nowhere/at/all'; expected a cfx checkpoint folder, .*:callable"),
    ],
)
def test_what_cannot_be_imported_or_found_is_one_line(module, path, message):
    with pytest.raises(CfxError, match=message):
        open_network(path.format(module), "oracle")


@OLD
@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_graphs_in_files(kind, tmp_path):
    path = write(kind, tmp_path / "net")
    torch.testing.assert_close(open_network(path)(images()), expected())
    spec = {"path": str(path), "pixels": {"range": [0, 1]}, "output": {"classes": ["a", "b"]}}
    torch.testing.assert_close(open_network(spec)(images()), expected((images() + 1) / 2))


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "nested"])
@pytest.mark.parametrize("name", ["monai-densenet121", "monai-resnet18", "cnn"])
def test_state_dicts_with_the_name_of_their_network(name, suffix, tmp_path):
    network, path = randomise(small(name)).eval(), tmp_path / "weights"
    spec = {"path": str(path), "network": name, "keywords": keywords(name)}
    if suffix == "safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save({"epoch": 1, "model": network.state_dict()} if suffix == "nested" else network.state_dict(), path)
    if suffix == "nested":
        with pytest.raises(CfxError, match=r"got the keys \['epoch', 'model'\]; name the one .*key: model"):
            open_network(spec)
        spec["key"] = "model"
    x = torch.randn(2, 1, 16, 24)
    torch.testing.assert_close(open_network(spec)(x), network(x))


def test_tensors_alone_do_not_say_of_what(tmp_path):
    path = write("new", tmp_path / "net.pt")
    with pytest.raises(InputError, match="holds tensors and does not say of which network; name it, network: "):
        open_network(path)
    with pytest.raises(InputError, match=r"network name: expected one of .*got 'resnet'"):
        open_network({"path": str(path), "network": "resnet"})
    with pytest.raises(CfxError, match="the weights do not fit the network: it has"):
        open_network({"path": str(path), "network": "cnn", "keywords": keywords("cnn")})


SCHEDULE = {"schedule": "scaled_linear_beta", "prediction_type": "v_prediction"}


def test_a_bare_unet_becomes_a_denoiser_with_its_schedule(tmp_path):
    network, path = randomise(small("monai-diffusion-unet", num_class_embeds=3)), tmp_path / "unet.pt"
    torch.save(network.state_dict(), path)
    spec = {"path": str(path), "network": "monai-diffusion-unet"}
    spec |= {"keywords": keywords("monai-diffusion-unet") | {"num_class_embeds": 3}}
    with pytest.raises(InputError, match=r"generator.schedule: .*needs its schedule of noise"):
        open_network(spec, "generator")
    with pytest.raises(InputError, match=r"generator.labels: .*expected labels: 2, if the last of its 3"):
        open_network(spec | {"schedule": SCHEDULE}, "generator")
    found = open_network(spec | {"schedule": SCHEDULE, "labels": 2}, "generator")
    assert isinstance(found, Denoiser)
    assert (found.classes, found.schedule.prediction) == (2, "v")
    x = torch.randn(1, 1, 16, 16)
    q = found(x, 10, torch.tensor([1]))
    torch.testing.assert_close(
        q.v, network.eval()(x, torch.tensor([9]), class_labels=torch.tensor([1])), atol=1e-3, rtol=0
    )


def checkpoint(folder, **more):
    network = randomise(small("cnn"))
    save(folder, network, name="cnn", config=keywords("cnn"), classes=("edema", "mass", "nodule"), **more)
    return network.eval()


def test_a_checkpoint_of_findings_asks_which(tmp_path):
    network, x = checkpoint(tmp_path / "net", multilabel=True), torch.randn(2, 1, 16, 16)
    with pytest.raises(InputError, match=r"\(multilabel\): output.finding: .*among 0 edema, 1 mass, 2 nodule"):
        open_network(tmp_path / "net")
    for finding in ("mass", 1):
        found = open_network({"path": str(tmp_path / "net"), "output": {"finding": finding}})
        assert isinstance(found, Finding)
        torch.testing.assert_close(found(x), network(x)[:, 1:2])
    with pytest.raises(InputError, match=r"expected one among .*got 'effusion'"):
        open_network({"path": str(tmp_path / "net"), "output": {"finding": "effusion"}}, "oracle")
    checkpoint(tmp_path / "exclusive")
    assert type(open_network(tmp_path / "exclusive")).__name__ == "Cnn"


def test_a_checkpoint_of_a_value_asks_for_its_goal(tmp_path):
    model = Regressor(one_value(), ["age"], [70.0], [10.0])
    save(tmp_path / "age", model, name="cnn", config=keywords("cnn") | {"out_channels": 1}, kind="regressor")
    with pytest.raises(InputError, match=r"predicts \['age'\]; expected output: \{kind: regression"):
        open_network(tmp_path / "age")
    output = {"kind": "regression", "goal": 65, "tolerance": 5}
    assert isinstance(open_network({"path": str(tmp_path / "age"), "output": output}), Near)


def one_value():
    from cfx.models import build

    return randomise(build("cnn", **keywords("cnn") | {"out_channels": 1}))


def test_every_role_refuses_what_is_for_another(tmp_path):
    checkpoint(tmp_path / "net")
    vae = randomise(small("monai-autoencoder-kl"))
    save(tmp_path / "vae", vae, name="monai-autoencoder-kl", config=keywords("monai-autoencoder-kl"))
    with pytest.raises(InputError, match="generator: expected a diffusion checkpoint, got Cnn"):
        open_network(tmp_path / "net", "generator")
    with pytest.raises(InputError, match="generator: expected a diffusion checkpoint, got MonaiKl"):
        open_network(tmp_path / "vae", "generator")
    with pytest.raises(InputError, match=r"classifier: expected a classifier's checkpoint, got .*A variational"):
        open_network(tmp_path / "vae")
    with pytest.raises(InputError, match="autoencoder: expected encode and decode, got Cnn"):
        open_network(tmp_path / "net", "autoencoder")
    with pytest.raises(InputError, match=r"segmenter: expected a network that draws masks .*got Cnn of"):
        open_network(tmp_path / "net", "segmenter")
    assert type(open_network(tmp_path / "vae", "autoencoder")).__name__ == "MonaiKl"
    assert type(open_network("tests.segmentation.toys:Threshold", "segmenter")).__name__ == "Threshold"
    for key, value in (("pixels", {"range": [0, 1]}), ("output", {"kind": "binary"})):
        with pytest.raises(InputError, match=rf"generator.{key}: only for classifiers"):
            open_network({"path": str(tmp_path / "net"), key: value}, "generator")


def test_a_folder_of_nothing_known_says_what_it_holds(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(CfxError, match=r"cfx.json is missing; .*holds config.json; .*transformers name a function"):
        open_network(tmp_path)


def test_home_and_variables_are_put_in(tmp_path, monkeypatch):
    checkpoint(tmp_path / "net")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETS", str(tmp_path))
    for path in ("~/net", "$NETS/net", "${NETS}/net"):
        assert type(open_network(path)).__name__ == "Cnn"
    for path in ("~no-such-user/net", "$NO_SUCH_NAME/net"):
        with pytest.raises(InputError, match=r"path: expected .*, got [~$](no|NO)"):
            open_network(path)


def test_names_and_descriptions():
    assert spec_of("some/folder/net.pt").name == "net.pt"
    assert spec_of("package.module:make").name == "package.module:make"
    spec = NetworkSpec(path="x", pixels=Pixels(range=(0, 1)), output=Output(kind="binary"))
    assert spec_of(spec.model_dump()) == spec
    with pytest.raises(InputError, match="unknown key `pixel`; did you mean `pixels`"):
        spec_of({"path": "x", "pixel": {}})


def test_described_and_adapted_by_hand_are_the_same(module):
    x = images()
    described = open_network({"path": f"{module}:make", "pixels": {"range": [-2, 2]}, "output": {"kind": "logits"}})
    torch.testing.assert_close(described(x), adapt(plain().eval(), pixels=Pixels(range=(-2, 2)))(x))


def test_a_latent_pipeline_is_a_generator(tmp_path):
    from tests.models import test_folders

    network = test_folders.unet(in_channels=2, out_channels=2, sample_size=8)
    parts = {"unet": network, "vae": test_folders.vae(), "scheduler": test_folders.scheduler()}
    for name, part in parts.items():
        test_folders.saved(part, tmp_path / name)
    assert isinstance(open_network(tmp_path, "generator"), LatentDiffusion)
    assert type(open_network(tmp_path / "vae", "autoencoder")).__name__ == "DiffusersKl"


def test_in_python_too_findings_are_no_classes(tmp_path):
    checkpoint(tmp_path / "net", multilabel=True)
    checkpoint(tmp_path / "exclusive")
    network, x = load(tmp_path / "net"), torch.randn(2, 1, 16, 16)
    with pytest.raises(InputError, match=r"scan: .*independent findings \(multilabel\); wrap .*Finding"):
        Judge(network, "scan")
    assert Judge(Finding(network, 2)).logits(x).shape == (2, 2)
    assert Judge(load(tmp_path / "exclusive")).logits(x).shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise RuntimeError('no weights here')", "no weights here"),
        ("x = (", "was never closed"),
        ("{}['size']", "KeyError: 'size'"),
        ("undefined", "name 'undefined' is not defined"),
    ],
)
def test_a_module_that_fails_when_imported_is_one_line(tmp_path, monkeypatch, text, words):
    (tmp_path / "fails_when_imported.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="classifier: the module fails_when_imported failed when imported: ") as caught:
        open_network("fails_when_imported:make")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("role", ["generater", "Classifier", ""])
def test_an_unknown_role_is_named(module, role):
    with pytest.raises(InputError, match=rf"role: expected one of \['classifier', 'oracle', .*\], got '{role}'"):
        unwrap(open_network)(f"{module}:make", role)  # before the type checks of the test run


@OLD
@pytest.mark.parametrize("kind", ["torchscript", "exported", "module"])
def test_cfx_load_takes_what_says_itself_what_it_is(kind, module, tmp_path):
    path = f"{module}:ready" if kind == "module" else write(kind, tmp_path / "net.bin")
    torch.testing.assert_close(cfx.load(path)(images(3)), open_network(path)(images(3)), rtol=0, atol=0)


def test_cfx_load_takes_folders(tmp_path):
    from tests.models import test_folders

    for name, part in {"unet": test_folders.unet(), "scheduler": test_folders.scheduler()}.items():
        test_folders.saved(part, tmp_path / name)
    assert isinstance(cfx.load(tmp_path), Denoiser)
    test_folders.saved(test_folders.unet(), tmp_path / "alone/net")
    with pytest.raises(InputError, match=r"schedule: expected .*open_network\(\{'path': .*, role\)"):
        cfx.load(tmp_path / "alone/net")
    assert isinstance(cfx.load("brain64-diffusion"), Denoiser)
    assert type(cfx.load("brain64-classifier")) is type(load("brain64-classifier"))


def test_what_cfx_load_is_not_told_is_said(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "unit.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "unit.pth")
    for file in ("unit.safetensors", "unit.pth"):
        with pytest.raises(InputError, match=rf"holds tensors .*open_network\(\{{'path': '.*{file}', ...\}}, role\)"):
            cfx.load(tmp_path / file)
    with pytest.raises(CfxError, match=r"missing; expected a checkpoint folder with cfx.json, or the name of one"):
        cfx.load("nowhere")
    (tmp_path / "notes.txt").write_text("hello, hello")
    with pytest.raises(CfxError, match=r"notes.txt: expected a safetensors file"):
        cfx.load(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CfxError, match=r"holds nothing; expected cfx.json or diffusers' config.json"):
        cfx.load(tmp_path / "empty")
