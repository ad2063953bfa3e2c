"""What cannot be explained is refused by name; what was done before the disk failed is kept."""

import errno
import sys
from functools import partial
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cfx.atlas import Atlas
from cfx.core.cohort import Cohort, Part
from cfx.core.errors import AtlasError, CfxWarning, InputError
from cfx.counterfactual import Minimal, explain, explain_batches
from cfx.counterfactual.explain import in_turn
from cfx.counterfactual.inputs import class_names
from cfx.models import build, load, save
from cfx.models.adapt import Output, adapt
from cfx.models.checkpoint import load_network
from cfx.models.wrappers import Finding, Near
from tests.counterfactual.toys import (
    ClassGaussian,
    Counted,
    Detached,
    Linear,
    NotFinite,
    Quadratic,
    assert_same,
    class_means,
    cohort,
    tensors,
)

MEANS = class_means((8, 8))
X = cohort(MEANS, 4).x
NAN = X.index_put((torch.tensor(2), torch.tensor(0), torch.tensor(3), torch.tensor(3)), torch.tensor(float("nan")))

BAD = {
    "nan": ({"x": NAN}, r"x: NaN or infinite pixels in rows \[2\]; expected finite values in \[-1, 1\]"),
    "range": ({"x": X * 127.5 + 127.5}, r"x: expected values in \[-1, 1\], got \[\d+.*\] \(rows \[0, 1, 2, 3\]\)"),
    "integers": ({"x": (X * 127).to(torch.int8)}, r"x: expected a floating-point tensor in \[-1, 1\], got torch.int8"),
    "no batch": ({"x": X[0]}, r"x: expected \(n, c, h, w\) or \(n, c, d, h, w\), got shape \(1, 8, 8\)"),
    "no images": ({"x": X[:0]}, r"x: expected at least one image, got none"),
    "channels": (
        {"x": X.expand(4, 3, 8, 8)},
        r"x: expected images of the generator's shape \(1, 8, 8\), got \(3, 8, 8\)",
    ),
    "size": ({"x": X[..., :6]}, r"x: expected images of the generator's shape \(1, 8, 8\), got \(1, 8, 6\)"),
    "dimensions": (
        {"x": X[:, :, None]},
        r"x: expected images of the generator's shape \(1, 8, 8\), got \(1, 1, 8, 8\)",
    ),
    "other classifier": ({"classifier": Linear((9, 9))}, r"classifier: failed on images of shape \(1, 1, 8, 8\): "),
    "infinite logits": (
        {"classifier": NotFinite((8, 8))},
        r"classifier: expected finite logits, got NaN or infinity for rows \[1\]",
    ),
    "no gradient": (
        {"classifier": Detached((8, 8))},
        r"classifier: expected logits with a gradient to the image, got detached ones",
    ),
    "target": ({"target": 2}, r"target: expected classes in 0 .. 1, got \[2\]"),
    "negative target": (
        {"target": torch.tensor([0, -1, 1, 0])},
        r"target: expected classes in 0 .. 1, got \[-1, 0, 1\]",
    ),
    "targets": ({"target": torch.tensor([0, 1])}, r"target: expected one class or 4 classes, got shape \(2,\)"),
    "depth": ({"depth": "deep"}, r"depth: expected 'typical' or 'boundary', got 'deep'"),
    "one class": (
        {"reference": cohort(MEANS, 20)[torch.arange(0, 20, 2)]},
        r"reference: expected images of class 1 that the classifier recognises, got none",
    ),
    "no labels": ({"reference": Cohort(X)}, r"reference: expected a cohort with one class label an image, got none"),
    "rows": ({"row": torch.arange(3)}, r"row: expected one counter for each of 4 images, got shape \(3,\)"),
    "negative rows": ({"row": torch.arange(4) - 1}, r"row: expected integers >= 0, got -1"),
    "seed": ({"seed": -1}, r"seed: expected an integer in \[0, 2\*\*64\), got -1"),
    "batch": ({"batch_size": 0}, r"batch_size: expected at least 1, got 0"),
    "oracle": ({"oracle": Linear((9, 9))}, r"oracle: failed on images of shape \(1, 1, 8, 8\): "),
    "a loader": ({"x": DataLoader(TensorDataset(X))}, r"x: expected images .* got DataLoader; join its batches"),
    "a list": ({"x": list(X)}, r"x: expected images .* got a list of Tensor; torch.stack makes one tensor"),
    "a pair": ({"x": (X, torch.zeros(4))}, r"x: expected images .* got a tuple of Tensor; pass Cohort\(x, y\)"),
    "a path": ({"x": "scans/"}, r"x: expected images .* got the path 'scans/'; cfx.load_cohort reads files"),
    "nothing": ({"x": None}, r"x: expected images .* got NoneType"),
    "meta": ({"x": X.to("meta")}, r"x: expected images .* got a tensor on the meta device"),
    "8 bits": ({"x": (X * 100 + 120).byte().numpy()}, r"x: expected a floating-point .* pass x / 127.5 - 1"),
    "target text": ({"target": "AD"}, r"target: expected a class among no names: pass a Cohort with classes"),
    "target half": ({"target": 0.5}, r"target: expected whole numbers, got \[0.5\]"),
    "target texts": (
        {"x": Cohort(X, classes=["CN", "AD"]), "target": ["CN", "MCI", "AD", "AD"]},
        r"target: expected a class among \['CN', 'AD'\], got 'MCI'",
    ),
    "target list": ({"target": [0, 1]}, r"target: expected one class or 4 classes, got shape \(2,\)"),
    "reference tensor": ({"reference": X}, r"reference: expected labelled images, Cohort\(x, y=labels\), got Tensor"),
    "reference pair": ({"reference": (X, X)}, r"reference: expected labelled images, .* got tuple"),
    "reference labels": (
        {"reference": cohort(MEANS, 20).replace(y=torch.arange(20) % 3)},
        r"reference: expected labels in 0 \.\. 1 as the classifier has, got 2",
    ),
    "never recognised": (
        {"reference": cohort(MEANS, 20), "classifier": lambda x: Linear((8, 8))(x) - 90},
        r"reference: expected images of class 1 that the classifier recognises, got none of 10; predicted .*: \[0\]",
    ),
    "classifier path": (
        {"classifier": "runs/best"},
        r"classifier: expected a network, got the path .runs/best.; open",
    ),
    "generator path": (
        {"generator": Path("g")},
        r"generator: expected a network, got the path 'g'; open it with cfx.models.open_network\('g', 'generator'\)",
    ),
    "class": ({"classifier": Linear}, r"classifier: expected a network, got the class Linear; build one"),
    "no function": ({"classifier": None}, r"classifier: expected a network or a function of images, got NoneType"),
    "bare reviewer": ({"reviewer": Linear((8, 8))}, r"reviewer: expected a diffusion model, got Linear"),
    "bare generator": (
        {"generator": Linear((8, 8))},
        r"generator: expected a diffusion model for minimal, got Linear; .*Denoiser",
    ),
    "method": ({"method": "best"}, r"method: expected one of .*, got 'best'"),
    "method class": ({"method": Minimal}, r"method: expected a name or a method with settings"),
    "seed text": ({"seed": "1"}, r"seed: expected an integer, got '1'"),
    "batch of a half": ({"batch_size": 2.5}, r"batch_size: expected an integer, got 2.5"),
    "row text": ({"row": ["a", "b", "c", "d"]}, r"row: expected one integer an image, got list of str"),
    "oracle at random": (
        {"oracle": lambda x: Linear((8, 8))(torch.nn.functional.dropout(x, 0.3))},
        r"oracle: expected the same answer whenever an image is shown",
    ),
    "oracle of batches": (
        {"oracle": lambda x: Linear((8, 8))(x - x.mean())},
        r"oracle: .* depends on the images",
    ),
    "oracle without numbers": ({"oracle": lambda x: Linear((8, 8))(x) * torch.nan}, r"oracle: expected finite logits"),
    "complex": (
        {"classifier": lambda x: Linear((8, 8))(x) + 0j},
        r"classifier: .* got complex \(1, 1\)",
    ),
    "keep numbers": ({"keep": X}, r"keep: expected a boolean mask \(4, 1, 8, 8\), got torch.float32 \(4, 1, 8, 8\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case, monkeypatch):
    """Unwrapped: the type checks of the test run would refuse some of these before the library does."""
    wrong, message = BAD[case]
    good = {"x": X, "classifier": Linear((8, 8)), "generator": ClassGaussian(MEANS)}
    more = {"target", "depth", "reference", "row", "seed", "batch_size", "oracle", "reviewer", "method", "keep"}
    assert wrong.keys() <= {*good, *more}
    monkeypatch.setattr(sys.modules["cfx.counterfactual.explain"], "explain_batches", unwrap(explain_batches))
    with pytest.raises(InputError, match=message) as error:
        unwrap(explain)(**(good | wrong))
    assert "\n" not in str(error.value)


def test_what_stands_for_the_same_images_and_targets_is_explained_alike():
    named = Cohort(X.numpy(), classes=["CN", "AD"])
    network = Linear((8, 8))
    network.classes = ("CN", "AD")
    channels_last = X.to(memory_format=torch.channels_last)
    run = partial(explain, classifier=network, generator=ClassGaussian(MEANS), method=Minimal(trials=2))
    expected = tensors(run(X, target=torch.tensor([1, 0, 1, 0])))
    for x, target in (
        (X.numpy(), [1, 0, 1, 0]), (X.clone().requires_grad_(), np.array([1, 0, 1, 0])), (named, ["AD", "CN"] * 2),
        (X.to_sparse(), ("AD", "CN", "AD", "CN")), (channels_last, np.array(["AD", "CN"] * 2)),
        (X.transpose(2, 3).contiguous().transpose(2, 3), torch.tensor([1, 0, 1, 0], dtype=torch.int32)),
        (X.numpy().astype(">f8"), np.array([1.0, 0.0, 1.0, 0.0])),
    ):  # fmt: skip
        assert_same(tensors(run(x, target=target)), expected, tolerance=0)
    one = tensors(run(X, target=1))
    for target in ("AD", np.int64(1), np.array(1)):
        assert_same(tensors(run(X, target=target)), one, tolerance=0)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([[0, 9]], r"got \[9\]"), ([[-1]], r"got \[-1\]"), ([[]], "got an empty batch"), (3, "got 3"),
        ([["a"]], "a list of lists of positions"), ([[0.5]], "a list of lists of positions"),
    ],
)  # fmt: skip
def test_batches_are_positions_of_images(batches, message):
    with pytest.raises(InputError, match=f"^batches: expected .*{message}"):
        unwrap(explain_batches)(X, Linear((8, 8)), ClassGaussian(MEANS), batches=batches)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_classifier_is_shown_images_in_its_own_precision(dtype):
    class Strict(Linear):
        def forward(self, x):
            assert x.dtype == dtype
            return super().forward(x)

    result = explain(X, Strict((8, 8)).to(dtype), ClassGaussian(MEANS), method=Minimal(trials=2))
    plain = explain(X, Linear((8, 8)), ClassGaussian(MEANS), method=Minimal(trials=2))
    assert result.probs_before.dtype == torch.float32
    torch.testing.assert_close(result.probs_before, plain.probs_before, atol=0.05, rtol=0)


DOUBTFUL = {
    "sigmoid": ({"classifier": lambda x: Linear((8, 8))(x).sigmoid()}, "classifier: .* look like probabilities"),
    "softmax": ({"classifier": lambda x: Quadratic(MEANS)(x).softmax(1)}, "classifier: .* look like probabilities"),
    "oracle": ({"oracle": lambda x: Linear((8, 8))(x).sigmoid()}, "oracle: .* look like probabilities"),
    "range": ({"x": (X + 1) / 2}, r"x: expected images in \[-1, 1\], .* pass 2 \* x - 1"),
    "blank": ({"x": torch.cat([X, 0 * X])}, "x: expected images, got ones of a single value in 4 of 4 rows"),
    "exchanged": (
        {"x": cohort(MEANS, 12), "classifier": lambda x: -Linear((8, 8))(x)},
        "classifier: expected one that recognises the classes of x, .* exchanged?",
    ),
    "reference": (
        {"reference": cohort(MEANS, 40).replace(y=torch.arange(40) // 2 % 2)},
        "classifier: expected one that recognises the classes of reference, .* pixels it was trained on",
    ),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_what_is_doubtful_is_warned_of_by_name(case):
    wrong, message = DOUBTFUL[case]
    good = {"x": X, "classifier": Linear((8, 8)), "generator": ClassGaussian(MEANS), "method": Minimal(trials=1)}
    with pytest.warns(CfxWarning, match=message):
        explain(**(good | wrong))


def test_labels_of_several_findings_are_refused_until_one_is_chosen():
    many = Cohort(X, y=torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(InputError, match=r"^classifier: expected one finding, since x.y has labels of 2 findings"):
        explain(many, Quadratic(MEANS), ClassGaussian(MEANS))
    explain(many, Finding(Quadratic(MEANS), 1), ClassGaussian(MEANS), method=Minimal(trials=1))


def test_a_lone_wrong_image_names_its_row_in_a_large_input():
    x = X.repeat(100, 1, 1, 1)
    x[321, 0, 0, 0] = -3
    with pytest.raises(InputError, match=r"\(rows \[321\]\)"):
        explain(x, Linear((8, 8)), ClassGaussian(MEANS))


def test_images_in_double_precision_are_explained_in_single():
    single, double = (explain(x, Linear((8, 8)), ClassGaussian(MEANS)) for x in (X, X.double()))
    assert_same(tensors(single), tensors(double), tolerance=0)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_fails_keeps_the_batches_before_it(tmp_path, monkeypatch, code):
    toys, classifier, generator = cohort(MEANS, 6), Linear((8, 8)), Counted(ClassGaussian(MEANS))
    whole = explain(toys, classifier, generator, batch_size=2)
    atlas = Atlas.create(tmp_path / "a.zarr", whole[:0], rows=range(6), shard=2)
    store = zarr.storage.LocalStore.set

    async def failing(self, key, value):
        if "edited/c/2" in key:  # a shard of the third batch
            raise OSError(code, "the disk refused")
        return await store(self, key, value)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", failing)
    parts = explain_batches(toys, classifier, generator, batches=in_turn(6, 2))
    with pytest.raises(AtlasError, match=r"a.zarr: could not write: .*the disk refused"):
        any(map(atlas.write, parts))
    monkeypatch.undo()

    left = Atlas(tmp_path / "a.zarr")
    missing = torch.tensor(left.missing())
    assert missing.tolist() == [4, 5]
    assert_same(tensors(left.read()), tensors(whole[:4]), tolerance=0)
    generator.rows = 0
    for part in explain_batches(toys, classifier, generator, batches=[left.missing()]):
        left.write(part)
    assert generator.rows == whole.nfe_unet_forward[missing].sum() + 4 * 2  # and both at four noise levels
    assert_same(tensors(left.read()), tensors(whole))


class Halving(ClassGaussian):
    """A generator that says what sizes its levels can take, and no shape."""

    multiple = 4

    @property
    def shape(self):
        return None


@pytest.mark.parametrize("space", [(6, 8), (8, 7)])
def test_sizes_that_the_generator_cannot_halve_are_refused(space):
    with pytest.raises(InputError, match=rf"x: expected spatial sizes divisible by 4, got \({space[0]}, {space[1]}\)"):
        explain(torch.zeros(2, 1, *space), Linear(space), Halving(MEANS))


THREE = class_means((8, 8), 3)
NAMED = Cohort(X, y=[0, 1, 0, 1], classes=["CN", "AD"])
TOYS = cohort(MEANS, 4)


class Wide(nn.Module):
    """As many columns as are asked for, of which the first two are `Quadratic`'s."""

    def __init__(self, k, classes=None):
        super().__init__()
        self.network, self.k = Quadratic(MEANS), k
        if classes is not None:
            self.classes = classes

    def forward(self, x):
        two = self.network(x)
        return torch.cat([two, two[:, :1] - 1 - torch.arange(self.k - 2)], 1)


def named(classes, network=None):
    return adapt(network or Quadratic(MEANS), output=Output(classes=classes))


def run(x, classifier=None, **more):
    return explain(x, classifier or Quadratic(MEANS), ClassGaussian(MEANS), method=Minimal(trials=1), **more)


OTHER_CLASSES = {
    "oracle of findings": ({"oracle": Wide(14)}, r"^oracle: expected the 2 classes of the classifier, got 14 "),
    "oracle of three": ({"oracle": Wide(3)}, r"^oracle: expected the 2 classes .*, got 3"),
    "oracle of two": ({"oracle": Linear((8, 8)), "classifier": Wide(3)}, r"^oracle: expected the 3 classes .*, got 2"),
    "oracle in another order": (
        {"oracle": named(("AD", "CN")), "classifier": named(("CN", "AD"))},
        r"^oracle: its classes are \('AD', 'CN'\), those of the classifier \('CN', 'AD'\)",
    ),
    "oracle of other names": (
        {"oracle": named(("old", "young")), "classifier": named(("CN", "AD"))},
        r"^oracle: its classes are \('old', 'young'\), those of the classifier",
    ),
    "oracle against images": (
        {"oracle": named(("AD", "CN")), "x": NAMED},
        r"^oracle: its classes are \('AD', 'CN'\), those of x \('CN', 'AD'\)",
    ),
    "findings for classes": (
        {"x": NAMED, "classifier": Wide(14)},
        r"^classifier: expected one column for each of the 2 classes \('CN', 'AD'\) of x, got 14; one finding of",
    ),
    "unlabelled": (
        {"x": NAMED.replace(y=None), "classifier": Wide(14)},
        r"^classifier: expected one column .* of x, got 14; one finding of several\? .*Finding\(network, k\)",
    ),
    "reference of two": (
        {"reference": cohort(MEANS, 20).replace(classes=["CN", "AD"]), "classifier": Wide(3)},
        r"^classifier: expected one column for each of the 2 classes .* of reference, got 3",
    ),
    "one name": ({"x": Cohort(X, y=[0] * 4, classes=["CN"])}, r"^classifier: expected one column .* 1 classes"),
    "three names": ({"x": NAMED.replace(classes=["a", "b", "c"])}, r"^classifier: .* 3 classes .* of x, got 2"),
    "labels from 1": ({"x": TOYS.replace(y=TOYS.y + 1)}, r"^x: expected labels in 0 \.\. 1 as the classifier .* got 2"),
    "labels from 7": ({"x": TOYS.replace(y=TOYS.y + 7)}, r"^x: expected labels in 0 \.\. 1 as the classifier .* got 8"),
    "labels of a finding": (
        {"x": TOYS.replace(y=TOYS.y + 1), "classifier": Finding(Wide(3), 1)},
        r"^x: expected labels in 0 \.\. 1 as the classifier .* got 2",
    ),
    "one-hot": (
        {"x": TOYS.replace(y=nn.functional.one_hot(TOYS.y))},
        r"^x.y: expected class numbers \(4,\), got one-hot labels \(4, 2\); pass y.argmax\(1\)",
    ),
    "one-hot of a binary logit": (
        {"x": TOYS.replace(y=nn.functional.one_hot(TOYS.y)), "classifier": Linear((8, 8))},
        r"^x.y: expected class numbers",
    ),
    "one-hot reference": (
        {"reference": cohort(MEANS, 20).replace(y=nn.functional.one_hot(cohort(MEANS, 20).y))},
        r"^reference.y: expected class numbers \(20,\)",
    ),
    "names of another study": (
        {"x": NAMED, "classifier": named(("healthy", "ill"))},
        r"^x: labels .* are not among the classes \('healthy', 'ill'\) of the classifier",
    ),
    "names of another study, unlabelled": (
        {"x": NAMED.replace(y=None), "classifier": named(("healthy", "ill"))},
        r"^x: its classes are \('CN', 'AD'\), those of the classifier \('healthy', 'ill'\)",
    ),
    "names of another reference": (
        {"x": NAMED, "reference": cohort(MEANS, 20).replace(classes=["healthy", "ill"])},
        r"^classes: expected one set of classes, got x CN, AD; reference healthy, ill",
    ),
    "sizes of the reference": (
        {"reference": cohort(class_means((8, 6)), 20)},
        r"^reference: expected images of the shape \(1, 8, 8\) of x, got \(1, 8, 6\)",
    ),
    "channels of the reference": (
        {"reference": Cohort(X.repeat(1, 3, 1, 1), y=TOYS.y), "depth": "boundary"},
        r"^reference: expected images of the shape \(1, 8, 8\) of x, got \(3, 8, 8\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_CLASSES)
def test_inputs_of_different_classes_are_refused_with_both(case):
    with pytest.raises(InputError, match=OTHER_CLASSES[case][1]) as error:
        run(**({"x": X} | OTHER_CLASSES[case][0]))
    assert "\n" not in str(error.value)


MANY = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
SAME_CLASSES = {
    "no names": {"x": X, "classifier": Wide(14)},
    "two of three": {"x": TOYS, "classifier": Wide(3)},
    "findings": {"x": Cohort(X, y=MANY, classes=["mass", "nodule"]), "classifier": Finding(Quadratic(MEANS), 1)},
    "one finding each": {"x": Cohort(X, y=[[0, 1]] * 4, classes=["a", "b"]), "classifier": Finding(Wide(2), 1)},
    "unlabelled findings": {"x": Cohort(X, classes=["a", "b", "c"]), "classifier": Finding(Wide(3), 1)},
    "a value": {"x": TOYS.replace(y=TOYS.y + 60), "classifier": Near(Linear((8, 8)), 0.0, 1.0), "target": 1},
    "same names": {"x": NAMED, "classifier": named(("CN", "AD")), "oracle": named(("CN", "AD"))},
    "a binary oracle": {"x": NAMED, "oracle": Linear((8, 8)), "reference": cohort(MEANS, 20)},
    "names of fewer columns": {"x": NAMED, "classifier": Wide(2, classes=["AD"])},
    "no names of classes": {"x": NAMED, "classifier": Wide(2, classes=2)},
    "soft labels": {"x": TOYS.replace(y=torch.full((4, 2), 0.5))},
    "some unknown": {"x": TOYS.replace(y=torch.tensor([0, 1, -1, -1]))},
    "all unknown": {"x": TOYS.replace(y=torch.tensor([-1] * 4))},
    "an oracle of labelled images": {"x": cohort(MEANS, 40), "oracle": Linear((8, 8))},
}  # fmt: skip


@pytest.mark.parametrize("case", SAME_CLASSES)
def test_inputs_of_the_same_classes_are_explained_in_silence(case):
    run(**SAME_CLASSES[case])


def flipped(toys, **more):
    return toys.replace(y=1 - toys.y, **more)


@pytest.mark.parametrize("classifier", [named(("CN", "AD")), Wide(2, classes=["CN", "AD"])])
def test_classes_that_both_name_are_compared_by_name(classifier):
    toys, reference = cohort(MEANS, 12).replace(classes=["CN", "AD"]), cohort(MEANS, 40)
    expected = run(toys, classifier, target="AD", reference=reference)
    other = flipped(toys, classes=["AD", "CN"])
    for x, beside in (
        (other, reference), (toys, flipped(reference, classes=["AD", "CN"])),
        (Part(other, torch.arange(12)), reference),
        (toys.x, reference), (toys.replace(y=None, classes=["AD", "CN"]), reference),
    ):  # fmt: skip
        found = run(x, classifier, target="AD", reference=beside)
        assert_same(tensors(found), tensors(expected), tolerance=0)
        assert list(found.classes) == ["CN", "AD"]
        assert found.cohort.y is None or torch.equal(found.cohort.y, toys.y)
    run(other, classifier)  # whose labels are judged by their names


def test_a_reference_is_numbered_by_the_names_of_the_images():
    toys, reference = cohort(MEANS, 12).replace(classes=["CN", "AD"]), cohort(MEANS, 40)
    expected = run(toys, reference=reference)
    found = run(toys, reference=flipped(reference, classes=["AD", "CN"]))
    assert_same(tensors(found), tensors(expected), tolerance=0)


def test_tensors_have_the_names_that_the_classifier_knows():
    assert list(run(X, named(("CN", "AD"))).classes) == ["CN", "AD"]
    assert list(run(X, named(("CN", "AD"), Linear((8, 8)))).classes) == ["CN", "AD"]
    assert list(run(X).classes) == []


def shrunk(x):
    return Linear((8, 8))((x + 1) / 2)


@pytest.mark.parametrize(
    ("oracle", "words"),
    [
        (lambda x: -Linear((8, 8))(x), r"exchanged\?"), (lambda x: Quadratic(MEANS)(x).flip(1), r"exchanged\?"),
        (shrunk, "pixels it was trained on"), (lambda x: 0 * Linear((8, 8))(x) + 1, "pixels it was trained on"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("labelled", ["x", "reference"])
def test_an_oracle_is_judged_by_what_is_labelled(oracle, words, labelled):
    if labelled == "reference" and "exchanged" in words:
        with pytest.raises(
            InputError, match=r"^oracle: expected columns in the order of the labels .* class 1, class 0"
        ):
            run(X, reference=cohort(MEANS, 40), oracle=oracle)
        return
    toys = {"x": cohort(MEANS, 40)} if labelled == "x" else {"x": X, "reference": cohort(MEANS, 40)}
    with pytest.warns(
        CfxWarning, match=rf"^oracle: expected one that .* of {labelled}, got balanced .*{words}"
    ) as seen:
        run(**toys, oracle=oracle)
    assert len(seen) == 1


def test_an_oracle_is_not_judged_by_few_images():
    run(cohort(MEANS, 6), oracle=lambda x: -Linear((8, 8))(x))


@pytest.mark.parametrize("y", [[-1, 1, -1, 1], [-1, 0, -1, 0], [-2, 0, 1, -2], [-7, -7, 0, 0]])
def test_labels_below_0_are_doubted_unless_they_mark_what_is_unknown(y):
    with pytest.warns(CfxWarning, match=r"^x: expected labels in 0 \.\. 1 as the classifier has, got \[-"):
        run(Cohort(X, y=y))


def test_rows_that_the_classifier_errs_on_may_have_been_chosen():
    with pytest.warns(CfxWarning, match=r"exchanged\? .*; if these rows were chosen because the classifier errs, igno"):
        run(flipped(cohort(MEANS, 12)))


class TestClassNames:
    def test_they_are_those_of_its_columns(self):
        assert class_names(named(("a", "b")), 2) == ("a", "b")
        assert class_names(Wide(3, classes=["a", "b", "c"]), 3) == ("a", "b", "c")
        assert class_names(adapt(Wide(2, classes=["a", "b"]), output=Output(activation="softmax")), 2) == ("a", "b")
        assert class_names(named(("c", "d"), Wide(2, classes=["a", "b"])), 2) == ("c", "d")

    @pytest.mark.parametrize("more", [{}, {"multilabel": True}])
    def test_a_checkpoint_knows_them_unless_they_are_findings(self, tmp_path, more):
        keywords = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (4, 4)}
        network = build("cnn", **keywords)
        save(tmp_path / "c", network, name="cnn", config=keywords, classes=("CN", "AD"), **more)
        assert class_names(load(tmp_path / "c"), 2) == (() if more else ("CN", "AD"))
        assert class_names(load_network(tmp_path / "c"), 2) == ()  # what is trained on may get other classes

    @pytest.mark.parametrize(
        "network",
        [
            Wide(2), Wide(2, classes=["a"]), Wide(2, classes=["a", "a"]), Wide(2, classes=2), Linear((8, 8)),
            Wide(2, classes=[0, 1]), Near(Linear((8, 8)), 0.0, 1.0), lambda x: x,
            adapt(Wide(2), output=Output(kind="multilabel", classes=("a", "b"), finding="b")),
        ],
    )  # fmt: skip
    def test_nothing_else_is(self, network):
        assert class_names(network, 2) == ()


class Columns(nn.Module):
    """The class means of some toys, their columns in another order."""

    def __init__(self, means, order):
        super().__init__()
        self.order, self.inside = order, Quadratic(means)

    def forward(self, x):
        return self.inside(x)[:, self.order]


VOLUMES = class_means((8, 8, 8))
THREE = class_means((8, 8), 3)
ORDERS = {
    "slices": (MEANS, [1, 0], "the labels count class 0, class 1, its columns class 1, class 0"),
    "volumes": (VOLUMES, [1, 0], "its columns class 1, class 0"),
    "three": (THREE, [2, 0, 1], "its columns class 2, class 0, class 1"),
    "two of three": (THREE, [0, 2, 1], "its columns class 0, class 2, class 1"),
}


@pytest.mark.parametrize("role", ["classifier", "oracle"])
@pytest.mark.parametrize("depth", ["typical", "boundary"])
@pytest.mark.parametrize("case", ORDERS)
def test_columns_in_another_order_than_the_reference_shows_are_refused_with_both(case, depth, role):
    means, order, words = ORDERS[case]
    networks = {"classifier": Quadratic(means)} | {role: Columns(means, order)}
    with pytest.raises(InputError, match=rf"^{role}: expected columns in the order of .*{words} \(\d+ of 60 images"):
        explain(
            cohort(means, 3, seed=1).x, generator=ClassGaussian(means), reference=cohort(means, 60), depth=depth,
            **networks,
        )  # fmt: skip


def test_what_has_names_keeps_its_order_whatever_the_reference_says():
    toys = cohort(MEANS, 40).replace(classes=["CN", "AD"])
    other = Columns(MEANS, [1, 0])
    other.classes = ["CN", "AD"]
    with pytest.warns(CfxWarning, match=r"^oracle: .* are the classes exchanged\?"):
        run(X, named(("CN", "AD"), Quadratic(MEANS)), reference=toys, oracle=other)


def test_a_generator_of_the_same_names_in_another_order_is_refused():
    class Named(ClassGaussian):
        names = ("AD", "CN")

    explain(X, named(("AD", "CN")), Named(MEANS), method=Minimal(trials=1))
    with pytest.raises(InputError, match=r"^generator: its classes are \('AD', 'CN'\), those of the classifier \('CN'"):
        explain(X, named(("CN", "AD")), Named(MEANS), method=Minimal(trials=1))
