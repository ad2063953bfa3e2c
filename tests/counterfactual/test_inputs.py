"""What cannot be explained is refused by name; what was done before the disk failed is kept."""

import errno
import sys
from inspect import unwrap

import pytest
import torch
import zarr

from cfx.atlas import Atlas
from cfx.core.cohort import Cohort
from cfx.core.errors import AtlasError, CfxWarning, InputError
from cfx.counterfactual import Minimal, explain, explain_batches
from cfx.counterfactual.explain import in_turn
from cfx.models.wrappers import Finding
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
    "oracle": ({"oracle": Linear((9, 9))}, r"oracle: failed on images of shape \(4, 1, 8, 8\): "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case, monkeypatch):
    """Unwrapped: the type checks of the test run would refuse some of these before the library does."""
    wrong, message = BAD[case]
    good = {"x": X, "classifier": Linear((8, 8)), "generator": ClassGaussian(MEANS)}
    assert wrong.keys() <= {*good, "target", "depth", "reference", "row", "seed", "batch_size", "oracle"}
    monkeypatch.setattr(sys.modules["cfx.counterfactual.explain"], "explain_batches", unwrap(explain_batches))
    with pytest.raises(InputError, match=message):
        unwrap(explain)(**(good | wrong))


DOUBTFUL = {
    "sigmoid": ({"classifier": lambda x: Linear((8, 8))(x).sigmoid()}, "classifier: .* look like probabilities"),
    "softmax": ({"classifier": lambda x: Quadratic(MEANS)(x).softmax(1)}, "classifier: .* look like probabilities"),
    "range": ({"x": (X + 1) / 2}, r"x: expected images in \[-1, 1\], .* pass 2 \* x - 1"),
    "blank": ({"x": torch.cat([X, 0 * X])}, "x: expected images, got ones of a single value in 4 of 8 rows"),
    "exchanged": (
        {"x": cohort(MEANS, 12), "classifier": lambda x: -Linear((8, 8))(x)},
        "classifier: expected one that recognises the classes of x, .* exchanged?",
    ),
    "reference": (
        {"reference": cohort(MEANS, 40).replace(y=torch.arange(40) // 2 % 2)},
        "classifier: expected one that recognises the classes of reference, .* range of pixels",
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
    assert generator.rows == whole.nfe_unet_forward[missing].sum()
    assert_same(tensors(left.read()), tensors(whole))
