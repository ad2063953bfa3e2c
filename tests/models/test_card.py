"""The card of a checkpoint says everything of its manifest that a reader needs, as model hubs read it."""

import re

import pytest
import yaml

from cfx.core.errors import InputError
from cfx.models.card import model_card
from cfx.models.kinds import KINDS, find

MANIFEST = {
    "kind": "classifier", "name": "cnn", "config": {"channels": [8, 16], "spatial_dims": 2}, "shape": (1, 64, 64),
    "classes": ("healthy", "ill"), "facts": {},
    "provenance": {
        "steps": 200, "learning_rate": 0.00123456, "command": "cfx train x.yaml", "figures": {"accuracy": 0.98761},
        "config": {"z": 1, "a": {"b": [1, 2]}},
    },
}  # fmt: skip


def section(card, name):
    return card.partition(f"## {name}\n")[2].partition("\n\n##")[0]


def test_the_front_matter_is_what_hubs_read():
    front = yaml.safe_load(model_card("toy", MANIFEST).split("---\n")[1])
    assert front == {"library_name": "cfx", "license": "apache-2.0", "tags": ["cfx", "classifier"]}


def test_every_fact_has_its_line():
    card = model_card("toy", MANIFEST)
    assert section(card, "Network").splitlines() == [
        "- kind: `classifier`", "- name: `cnn`", "- shape: 1, 64, 64", "- classes: `healthy`, `ill`",
        "- keywords: channels 8, 16, spatial_dims 2",
    ]  # fmt: skip
    assert section(card, "Training").splitlines() == [
        "- steps: 200", "- learning rate: 0.001235", "- command: `cfx train x.yaml`"
    ]  # fmt: skip
    assert section(card, "Figures") == "- accuracy: 0.9876"


def test_the_configuration_is_there_to_run_again():
    text = re.search("```yaml\n(.*?)```", model_card("toy", MANIFEST), re.S)[1]
    assert yaml.safe_load(text) == MANIFEST["provenance"]["config"]
    assert text.startswith("z: 1\n")  # in its own order


def test_what_is_not_known_is_said_or_left_out():
    card = model_card("toy", MANIFEST | {"provenance": {}, "shape": None, "classes": ()})
    assert section(card, "Training") == "Not recorded."
    assert section(card, "Figures") == "None recorded."
    assert "## Configuration" not in card
    assert "- shape" not in card
    assert "- classes" not in card


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_opens_with_the_use_of_its_kind_or_with_what_is_given(kind):
    assert f"# toy\n\n{find(kind).use}\n\n```python" in model_card("toy", MANIFEST | {"kind": kind})
    assert "# toy\n\nMine.\n\n```python" in model_card("toy", MANIFEST | {"kind": kind}, "Mine.")


def test_the_manifest_stays_as_it_was():
    before = {**MANIFEST, "provenance": dict(MANIFEST["provenance"])}
    model_card("toy", MANIFEST)
    assert before == MANIFEST


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match=r"kind: expected one of .* got 'oracle'"):
        model_card("toy", MANIFEST | {"kind": "oracle"})
