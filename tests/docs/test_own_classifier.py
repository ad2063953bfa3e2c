"""Every recipe of docs/own-classifier.md runs as it stands there, is right, and the wrong way round is not silent."""

import re
import sys
import warnings

import diffusers
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from cfx.atlas import read_atlas
from cfx.cli import app
from cfx.core.errors import CfxError, CfxWarning
from tests.models.networks import keywords, randomise
from tests.tiny import SIZE, checkpoint

MYNETS = '''
"""Networks of a user: class 1 is the brighter half of the images."""

import torch
from torch import nn

KEYWORDS = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "num_channels": (8, 16), "num_res_blocks": 1,
            "attention_levels": (False, True), "num_head_channels": 8, "norm_num_groups": 4}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

class Bright(nn.Module):
    """The logit is 60 times how far the mean, on [0, 1], is above one half."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(60.0))

    def logit(self, x):
        return self.gain * (x.flatten(1).mean(1, keepdim=True) - 0.5)

    def forward(self, x):
        z = self.logit(x)
        return torch.cat([-z / 2, z / 2], 1)

class ImageNet(Bright):
    def forward(self, x):
        assert tuple(x.shape[1:]) == (3, 224, 224), "expected 3 x 224 x 224"
        return super().forward(x * STD[:, None, None] + MEAN[:, None, None])

class Probability(Bright):
    def forward(self, x):
        return self.logit((x + 1) / 2).sigmoid()

class Findings(Bright):
    def forward(self, x):
        z = self.logit((x + 1) / 2)
        return torch.cat([z.expand(-1, 10) * 0.01 - 4, z, z.expand(-1, 3) * 0.01 - 3], 1)

class Answer:
    def __init__(self, logits):
        self.loss, self.logits, self.hidden_states = None, logits, (logits * 0,)

class Wrapped(Bright):
    def forward(self, x):
        return Answer(super().forward((x + 1) / 2))

class Strange(Wrapped):
    def forward(self, x):
        logits = super().forward(x).logits
        return {"a": logits, "b": -logits}

unit, imagenet, probability, findings, wrapped, strange = Bright, ImageNet, Probability, Findings, Wrapped, Strange
'''
LETTERS = "abcdefgh"


@pytest.fixture(scope="module")
def page(root):
    """The blocks of the page by the letter of their recipe: python, then YAML."""
    text = (root / "docs" / "own-classifier.md").read_text()
    sections = re.findall(r"^## \((\w)\)(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    blocks = {k: re.findall(r"```(python|yaml)\n(.*?)```", body, re.DOTALL) for k, body in sections}
    return {k: dict(found) for k, found in blocks.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the page presupposes: images, a generator, networks in a module, in files and in folders."""
    path = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for name, n in (("images", 1), ("validation", 8)):
        for label, level in (("dark", 100), ("light", 155)):
            (path / name / label).mkdir(parents=True)
            for k in range(n):
                pixels = np.clip(level + rng.normal(0, 40, (SIZE, SIZE)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(path / name / label / f"{k}.png")
    checkpoint(path / "generator", "patch-unet", 2)
    (path / "mynets.py").write_text(MYNETS)
    torch.manual_seed(0)
    unet = randomise(diffusers.UNet2DModel(**keywords("diffusers-unet2d") | {"sample_size": SIZE}))
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(path / "pipeline")
    return path


@pytest.fixture
def here(folder, monkeypatch):
    """The folder as the current directory, its module importable, its TorchScript and monai-generative files there."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "mynets", raising=False)
    import mynets

    if not (folder / "script.pt").exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(mynets.unit()), folder / "script.pt")
            generative = pytest.importorskip("generative.networks.nets")
        torch.manual_seed(1)
        torch.save(randomise(generative.DiffusionModelUNet(**mynets.KEYWORDS)).state_dict(), folder / "unet.pt")
    yield folder
    sys.modules.pop("mynets", None)


def leaves(values):
    """Number of keys that are set; the keywords of somebody's network are one."""
    return sum(leaves(v) if isinstance(v, dict) and k != "keywords" else 1 for k, v in values.items())


def believed(x):
    """What every network of the page believes of images in [-1, 1]: p(class 1)."""
    return torch.sigmoid(60 * ((x.flatten(1).mean(1) + 1) / 2 - 0.5))


def test_the_page_has_every_recipe_and_none_is_long(page):
    assert list(page) == list(LETTERS)
    for blocks in page.values():
        assert set(blocks) == {"python", "yaml"}
        assert len([line for line in blocks["python"].splitlines() if line.strip()]) <= 10
        assert leaves(yaml.safe_load(blocks["yaml"])) <= 12


@pytest.mark.parametrize("letter", LETTERS)
def test_a_recipe_in_python_is_right_and_silent(letter, page, here):
    names = {}
    exec(page[letter]["python"], names)  # a warning is an error
    result = names["result"]
    torch.testing.assert_close(result.probs_before[:, 1], believed(result.x), atol=1e-3, rtol=0)
    torch.testing.assert_close(result.probs_after[:, 1], believed(result.x_cf), atol=1e-3, rtol=0)
    assert result.probs_before.argmax(1).tolist() == [0, 1]


def run(here, text, *more):
    (here / "run.yaml").write_text(text)
    return CliRunner().invoke(app, ["explain", "run.yaml", "--out", str(here / "out"), "--resume", "false", *more])


@pytest.mark.parametrize("letter", LETTERS)
def test_a_recipe_on_the_command_line_is_right_and_silent(letter, page, here):
    done = run(here, page[letter]["yaml"])
    assert done.exit_code == 0, done.output
    assert "warning" not in done.output
    result = read_atlas(here / "out/atlas.zarr")
    torch.testing.assert_close(result.probs_before[:, 1], believed(result.x), atol=1e-3, rtol=0)
    torch.testing.assert_close(result.probs_after[:, 1], believed(result.x_cf), atol=1e-3, rtol=0)


WRONG = {
    "a, range left out": ("a", ("classifier", "mynets:unit"), "recognises the classes|recognise"),
    "b, one channel": ("b", ("classifier.pixels.channels", "1"), "pixels.mean: expected one number for each"),
    "b, its size left out": ("b", ("classifier.pixels.size", "null"), "expected 3 x 224 x 224"),
    "b, its standard left out": ("b", ("classifier.pixels", "{range: [0, 1], channels: 3, size: 224}"), "recog"),
    "c, as logits": ("c", ("classifier", "mynets:probability"), "look like probabilities|recognise"),
    "c, as a softmax": ("c", ("classifier.output", "{activation: softmax}"), "a softmax over one column is always 1"),
    "c, logits as probabilities": (
        "a",
        ("classifier.output", "{activation: softmax}"),
        "expected probabilities of a soft",
    ),
    "d, which finding": ("d", ("classifier.output", "{kind: multilabel}"), "one finding at a time"),
    "d, exclusive": ("d", ("classifier", "mynets:findings"), "independent findings|recognise"),
    "d, binary": ("d", ("classifier.output", "{kind: binary}"), "binary expects one column an image, got 14"),
    "d, no such finding": ("d", ("classifier.output.finding", "14"), r"output.finding: expected .* 0 .. 13, got 14"),
    "e, two tensors": ("e", ("classifier", "mynets:strange"), r"expected a tensor under logits, .*keys \['a', 'b'\]"),
    "f, no such file": ("f", ("classifier.path", "skript.pt"), "nothing at 'skript.pt'"),
    "f, a graph as weights": ("f", ("generator", "script.pt"), "generator.schedule|generator"),
    "g, noise of another form": ("g", ("generator", "{path: pipeline, schedule: {sigma_data: 0.5}}"), "table of betas"),
    "g, a classifier": ("g", ("classifier", "pipeline"), "expected a classifier, got Denoiser"),
    "h, no schedule": ("h", ("generator.schedule", "null"), "needs its schedule of noise"),
    "h, other keywords": ("h", ("generator.keywords.num_res_blocks", "2"), "expected those of a monai-generative"),
    "h, no name": ("h", ("generator.network", "null"), "does not say of which network"),
    "a key misspelt": ("a", ("classifier.pixel", "{range: [0, 1]}"), "did you mean `classifier.pixels`"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_wrong_way_round_is_refused_or_warned_of(case, page, here):
    letter, (key, value), words = WRONG[case]
    done = run(here, page[letter]["yaml"], f"--{key}", value)
    said = [line for line in done.output.splitlines() if line.startswith(("warning: ", "error: "))]
    assert done.exit_code in (0, 2), done.output
    assert re.search(words, " ".join(said)), said


@pytest.mark.parametrize("letter", ["a", "c", "d"])
def test_in_python_too(letter, page, here):
    bare = re.sub(r"adapt\((\w+\(\)),.*\)", r"\1", page[letter]["python"])
    assert bare != page[letter]["python"]
    with pytest.raises((CfxWarning, CfxError)):
        exec(bare, {})
