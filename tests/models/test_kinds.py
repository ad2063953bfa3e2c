"""Kinds of checkpoints by name."""

import json

import pytest

from cfx.core.errors import CheckpointError, InputError
from cfx.models import build, load, save
from cfx.models.kinds import KINDS, find
from cfx.models.registry import BUILDERS
from cfx.runtime.files import digest

CNN = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (8, 8)}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_made_of_networks_that_exist(name):
    kind = find(name)
    assert kind.network in {of for of, _ in BUILDERS.values()}
    assert kind.use.endswith(".")


def test_unknown_kinds_list_the_known(tmp_path):
    network = build("cnn", **CNN)
    with pytest.raises(InputError, match=r"kind: expected one of \['classifier'.*got 'oracle'"):
        save(tmp_path / "x", network, name="cnn", config=CNN, kind="oracle")
    save(tmp_path / "net", network, name="cnn", config=CNN)
    values = json.loads((tmp_path / "net/cfx.json").read_text()) | {"kind": "oracle"}
    values.pop("sha256")
    (tmp_path / "net/cfx.json").write_text(json.dumps(values | {"sha256": digest(values)}))
    with pytest.raises(CheckpointError, match="kind: expected one of"):
        load(tmp_path / "net")
