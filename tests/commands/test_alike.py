"""All that a command reads gives the same number to the same class."""

from pathlib import Path

import pytest
import torch

from cfx.commands.alike import alike, network_classes
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.data import BrainConfig, NpzConfig
from cfx.models import build, save
from cfx.models.adapt import Output
from cfx.models.opening import NetworkSpec

KEYWORDS = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (4, 4)}


@pytest.fixture
def network(tmp_path):
    """A checkpoint with these classes."""

    def make(name: str, classes: tuple[str, ...], **more) -> NetworkSpec:
        save(tmp_path / name, build("cnn", **KEYWORDS), name="cnn", config=KEYWORDS, classes=classes, **more)
        return NetworkSpec(path=str(tmp_path / name))

    return make


def cohort(y, classes):
    return Cohort(torch.zeros(len(y), 1, 2, 2), torch.tensor(y), classes=classes)


def test_the_first_network_that_names_classes_decides(network):
    paths = {
        "classifier": network("a", ()),
        "oracle": network("b", ("AD", "CN")),
        "other": NetworkSpec(path="package.module:callable"),
    }
    assert network_classes(paths | {"none": None}) == ("AD", "CN")
    assert network_classes({"classifier": None}) == ()
    assert network_classes({"a": network("c", ("old", "young")), "b": paths["oracle"]}) == ("old", "young")


def test_output_names_classes_and_findings_are_none(network):
    spec = network("a", ("AD", "CN"))
    for output, wanted in (
        ({"classes": ("x", "y")}, ("x", "y")),
        ({"kind": "binary"}, ("AD", "CN")),
        ({"kind": "multilabel", "finding": 0, "classes": ("x", "y")}, ()),
    ):
        assert network_classes({"classifier": spec.model_copy(update={"output": Output(**output)})}) == wanted
    assert network_classes({"classifier": network("b", ("mass", "nodule"), multilabel=True)}) == ()


def test_networks_that_number_the_same_classes_differently_are_refused(network):
    paths = {"classifier": network("a", ("AD", "CN")), "oracle": network("b", ("CN", "AD"))}
    with pytest.raises(InputError, match=r"oracle: its classes are \('CN', 'AD'\), those of classifier"):
        network_classes(paths)


def test_a_folder_that_lacks_a_class_is_numbered_as_the_classifier_is():
    patients, healthy = cohort([0, 0], ["AD"]), cohort([0, 0, 0], ["CN"])
    data, donors = alike(healthy, patients, ("AD", "CN"), beside="donors")
    assert (data.y.tolist(), donors.y.tolist()) == ([1, 1, 1], [0, 0])
    assert data.classes == donors.classes == ["AD", "CN"]
    both = cohort([0, 1], ["AD", "CN"])
    assert [c.y.tolist() for c in alike(healthy, both, ())] == [[1, 1, 1], [0, 1]]
    assert alike(healthy, None, ()) == (healthy, None)
    with pytest.raises(InputError, match=r"reference: labels MCI are not among the classes .* of the classifier"):
        alike(healthy, cohort([0], ["MCI"]), ("AD", "CN"))


@pytest.mark.parametrize("numbers", ["data", "donors"])
@pytest.mark.parametrize("own", [("AD", "CN"), ("healthy", "ill"), ("a", "b", "c")])
def test_numbers_beside_names_that_only_the_alphabet_orders_are_refused(own, numbers):
    plain, named = cohort([0, 1, 1], ()), cohort([0, 1, 0], own)
    pair = (plain, named) if numbers == "data" else (named, plain)
    other = {"data": "donors", "donors": "data"}[numbers]
    table, listing = NpzConfig(path=Path("a.npz")), NpzConfig(path=Path("a.npz"), classes=own)
    with pytest.raises(InputError, match=f"{other}: expected labels that are numbers, as those of {numbers}"):
        alike(*pair, (), beside="donors", configs=(table, table))
    for known in ({"classes": own, "configs": (table, table)}, {"classes": (), "configs": (listing, listing)}):
        found = alike(*pair, beside="donors", **known)
        assert [c.y.tolist() for c in found] == [c.y.tolist() for c in pair]
    unlabelled = plain.replace(y=None)
    alike(unlabelled, named, (), configs=(table, table))
    alike(named, named, (), configs=(table, table))
    alike(plain, named, (), configs=(table, BrainConfig()))
