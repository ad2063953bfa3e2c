"""A cohort is a source of images, and so is a part of one."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from cfx.core.cohort import (
    Cohort,
    Part,
    Source,
    as_source,
    categories,
    check_images,
    part,
    spread,
    subject_names,
    subjects,
)
from cfx.core.errors import InputError


class Counted:
    """A source that keeps count of the rows that were read."""

    def __init__(self, cohort: Cohort):
        self.cohort, self.read = cohort, []
        self.shape, self.y, self.ids = cohort.shape, cohort.y, cohort.ids
        self.covariates, self.classes = cohort.covariates, cohort.classes

    def __len__(self):
        return len(self.cohort)

    def __getitem__(self, rows):
        found = self.cohort[rows]
        self.read += found.ids
        return found


@pytest.fixture
def cohort() -> Cohort:
    x = torch.arange(7.0).view(7, 1, 1, 1).expand(7, 2, 4, 3) / 7
    age = torch.arange(7.0) * 10
    return Cohort(x, torch.arange(7) % 2, covariates={"age": age}, mask=x[:, :1] > 0.4, classes=["no", "yes"])


def test_a_cohort_is_a_source(cohort):
    assert isinstance(cohort, Source)
    assert cohort.shape == (2, 4, 3)
    assert isinstance(part(cohort, slice(2, 4)), Cohort)
    assert part(cohort, [3, 1]).ids == ("3", "1")


@pytest.mark.parametrize("rows", [slice(1, 6, 2), [5, 0, 5], torch.tensor([True, False] * 3 + [True])])
def test_a_part_of_a_source_reads_only_what_is_asked_for(cohort, rows):
    source, there = Counted(cohort), cohort[rows]
    some = part(source, rows)
    assert isinstance(some, Part)
    assert isinstance(some, Source)
    assert (len(some), some.shape, some.ids, some.classes) == (len(there), (2, 4, 3), there.ids, ["no", "yes"])
    assert some.y.equal(there.y)
    assert some.covariates["age"].equal(there.covariates["age"])
    assert source.read == []
    for inner in (slice(1, None), [2, 0], torch.tensor([1])):
        found, wanted = some[inner], there[inner]
        assert all(torch.equal(a, b) for a, b in zip(found.parts().values(), wanted.parts().values(), strict=True)
                   if isinstance(a, torch.Tensor))  # fmt: skip
        assert found.ids == wanted.ids
    assert len(source.read) == len(there) - 1 + 2 + 1


def test_a_part_of_a_part_is_a_part(cohort):
    outer = part(Counted(cohort), [6, 4, 2, 0])
    assert part(outer, slice(2, None))[:].ids == ("2", "0")
    assert part(part(Counted(cohort.replace(y=None)), [1]), [0]).y is None


def test_what_lacks_an_attribute_is_no_source(cohort):
    assert not isinstance([cohort], Source)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"NaN or infinite pixels in rows \[2\]"),
        (float("-inf"), r"NaN or infinite pixels in rows \[2\]"),
        (1.001, r"got \[0, 1.001\] \(rows \[2\]\)"),
        (-1.5, r"got \[-1.5, 0\] \(rows \[2\]\)"),
    ],
)
def test_a_pixel_that_is_none_is_named(value, message):
    x = torch.zeros(4, 1, 3, 3)
    x[2, 0, 1, 2] = value
    with pytest.raises(InputError, match=message):
        Cohort(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4, 1, 3, 3, dtype=torch.int64), "floating-point"),
        (torch.zeros(4, 3, 3), r"\(n, c, h, w\)"),
    ],
)
def test_what_is_no_image_is_refused(x, message):
    with pytest.raises(InputError, match=message):
        check_images(x)


def test_no_rows_are_a_cohort():
    assert len(Cohort(torch.zeros(0, 1, 3, 3))) == 0


def test_rows_of_one_name_or_one_subject_are_of_one_subject(cohort):
    assert subjects(cohort) is None
    assert subject_names(cohort) == cohort.ids
    twice = replace(cohort, ids=("b", "a", "b", "c", "a", "d", "e"))
    assert subjects(twice).tolist() == [0, 1, 0, 2, 1, 3, 4]
    whose = torch.tensor([12.0, 12.0, 7.0, torch.nan, 7.0, torch.nan, 123456789.0], dtype=torch.float64)
    named = replace(cohort, covariates={"subject": whose})
    assert subjects(named).tolist() == [0, 0, 1, 2, 1, 3, 4]
    assert subject_names(named) == ("12.0", "12.0", "7.0", "3", "7.0", "5", "123456789.0")
    assert subjects(part(Counted(named), [6, 1, 0])).tolist() == [0, 1, 1]
    assert subjects(named[[0, 2, 3]]) is None


def test_axes_are_those_of_the_affine_unless_they_are_given():
    volumes, places = torch.zeros(2, 1, 3, 4, 5), torch.diag(torch.tensor([2.0, -2, 2, 1])).repeat(2, 1, 1)
    assert list(Cohort(volumes).axes) == ["z", "y", "x"]
    assert list(Cohort(volumes[..., 0]).axes) == ["y", "x"]
    known = Cohort(volumes, affine=places)
    assert list(known.axes) == ["right", "back", "top"]
    assert list(known[:0].axes) == ["right", "back", "top"]
    assert list(Cohort(volumes, affine=places, axes=("a", "b", "c")).axes) == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"Cohort.axes: expected 3 different names"):
        Cohort(volumes, axes=["y", "x"])


def test_codes_of_subjects_have_names_wherever_the_rows_are(cohort):
    whose = torch.tensor([1.0, 1.0, 0.0, torch.nan, 0.0, torch.nan, 2.0], dtype=torch.float64)
    named = replace(cohort, covariates={"subject": whose}, categories={"subject": ("ann", "bob", "cy")})
    wanted = ("bob", "bob", "ann", "3", "ann", "5", "cy")
    assert subject_names(named) == wanted
    assert subject_names(named[[6, 0]]) == ("cy", "bob")
    assert named[[6, 0]].categories == named.categories
    other = replace(cohort, covariates={"subject": whose}, categories={"subject": ("bob", "cy", "dan")})
    assert set(subject_names(other)) & set(wanted) == {"bob", "cy", "3", "5"}  # by name, not by code
    assert categories(Counted(named)) == {}  # a source of the user's own need not have names
    assert categories(Part(named, torch.tensor([1]))) == named.categories


X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_arrays_and_lists_are_the_tensors_they_stand_for():
    plain = {"y": [0, 1, 1], "ids": ["a", "b", "c"], "classes": ["CN", "AD"], "covariates": {"age": [70, 71, 72.5]}}
    found = Cohort(X.double().numpy(), mask=(X > 0).numpy().astype("uint8"), affine=[np.eye(4, dtype=int)] * 3, **plain)
    assert torch.equal(found.x, X)
    assert torch.equal(found.y, torch.tensor([0, 1, 1]))
    assert (found.ids, found.classes) == (("a", "b", "c"), ["CN", "AD"])
    assert torch.equal(found.mask, X > 0)
    assert found.affine.is_floating_point()
    assert found.covariates["age"].tolist() == [70, 71, 72.5]
    assert torch.equal(found[[2, 0]].x, X[[2, 0]])


@pytest.mark.parametrize(
    "y",
    [
        [0, 1, 1], (0, 1, 1), [0.0, 1.0, 1.0], [False, True, True], ["CN", "AD", "AD"], np.array([0, 1, 1], "uint8"),
        np.array(["CN", "AD", "AD"]), np.array(["CN", "AD", "AD"], object), torch.tensor([0.0, 1.0, 1.0]),
        [[0], [1], [1]], torch.tensor([[0.0], [1.0], [1.0]]), np.array([[0], [1], [1]]),
    ],
)  # fmt: skip
def test_one_class_an_image_by_number_or_name(y):
    found = Cohort(X, y=y, classes=["CN", "AD"]).y
    assert torch.equal(found, torch.tensor([0, 1, 1]))
    assert found.dtype == torch.int64


ODD = {
    "names without numbers": ({"y": ["a", "b", "a"]}, r"^Cohort.y: expected class numbers, got names \['a', 'b'\]"),
    "another name": ({"y": ["a", "b", "d"], "classes": ["a", "b"]}, r"^Cohort.y: expected names among .*, got \['d'\]"),
    "halves": ({"y": [0, 0.5, 1]}, r"^Cohort.y: expected whole numbers, got \[0.5\]"),
    "missing": ({"y": [0, float("nan"), 1]}, r"^Cohort.y: expected whole numbers, got \[nan\]"),
    "too few labels": ({"y": [0, 1]}, r"^Cohort.y: expected .* got int64 \(2,\)"),
    "label without a name": ({"y": [0, 1, 2], "classes": ["a", "b"]}, r"^Cohort.y: .* 0 .. 1, places in .*, got 2"),
    "one name": ({"y": [[0], [1], [1]], "classes": ["a"]}, r"^Cohort.y: .* 0 .. 0, places in \['a'\], got 1"),
    "findings": ({"y": [[0, 3], [1, 1], [0, 0]]}, r"^Cohort.y: expected 0 or 1 for each finding, got values in \[0"),
    "text": ({"y": "011"}, r"^Cohort.y: expected class numbers, got str"),
    "classes": ({"classes": "AD"}, r"^Cohort.classes: expected a list of names, got 'AD'"),
    "classes twice": ({"classes": ["a", "a"]}, r"^Cohort.classes: expected every name once"),
    "ids": ({"ids": ["a", "b"]}, r"^Cohort.ids: expected 3 rows, got 2"),
    "mask": ({"mask": [[1, 2]]}, r"^Cohort.mask: expected Bool"),
    "mask of reals": ({"mask": X}, r"^Cohort.mask: expected Bool \(n, 1, \*space\)"),
    "affine": ({"affine": np.eye(4)}, r"^Cohort.affine: expected Float \(n, world=4, voxel=4\)"),
    "spacing": ({"spacing": 1.0}, r"^Cohort.spacing: expected Float \(n, dims\)"),
    "covariate": ({"covariates": {"sex": ["f", "m", "f"]}}, r"^Cohort.covariates.sex: expected numbers, got list"),
    "covariates": ({"covariates": [70, 71, 72]}, r"^Cohort.covariates: expected a mapping of columns, got list"),
    "8 bits": ({"x": (X * 100 + 120).byte().numpy()}, r"^Cohort.x: .* got torch.uint8; of 0 .. 255 pass x / 127.5 - 1"),
    "8-bit reals": ({"x": X * 100 + 120}, r"^Cohort.x: expected values in \[-1, 1\], .* pass x / 127.5 - 1"),
    "z-scores": ({"x": X * 3}, r"^Cohort.x: expected values in \[-1, 1\], .* rescale them by the range"),
    "no channel": ({"x": X[:, 0].repeat(3, 1, 1)}, r"^Cohort.x: .* got shape \(9, 4, 4\); add the axis"),
    "nothing": ({"x": None}, r"^Cohort.x: expected a tensor or array, .*, got NoneType"),
    "axes": ({"axes": "yx"}, r"^Cohort.axes: expected a list of names, got 'yx'"),
    "no images": ({"x": "scan.nii"}, r"^Cohort.x: expected a tensor or array, .*, got str"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_a_cohort_is_checked_by_type_shape_and_range(case):
    wrong, message = ODD[case]
    with pytest.raises(InputError, match=message) as error:
        Cohort(**({"x": X} | wrong))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("n", "most"), [(0, 8), (1, 8), (7, 8), (8, 8), (9, 8), (1000, 64), (9999, 256)])
def test_rows_are_spread_evenly_from_the_first_to_the_last(n, most):
    at = spread(n, most).tolist()
    assert len(set(at)) == len(at) == min(n, most)
    assert at == sorted(at)
    assert at[:1] + at[-1:] == ([0, n - 1] if n else [])
    gaps = [b - a for a, b in itertools.pairwise(at)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_images_a_user_gives_become_a_source():
    x = torch.zeros(2, 1, 4, 4)
    source = Cohort(x)
    assert as_source(source, "x") is source
    assert torch.equal(as_source(x.numpy(), "x")[[0, 1]].x, x)
    with pytest.raises(InputError, match=r"cohort: expected images .* got dict"):
        as_source({"kind": "png"}, "cohort")


def test_class_numbers_of_readers_stay_in_rows_that_have_few_of_them():
    readings = torch.tensor([0, 1, 2, 0], dtype=torch.uint8).reshape(4, 1, 1, 1)
    cohort = Cohort(torch.zeros(4, 1, 1, 1), readings=readings)
    assert cohort[[0, 1]].readings.dtype == torch.uint8
    assert torch.equal(Cohort.cat([cohort[[0, 1]], cohort[[2, 3]]]).readings, readings)
