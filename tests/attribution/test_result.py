"""A result is rows: selected, joined, kept in an atlas."""

import torch

from cfx.atlas import read_atlas, write_atlas
from cfx.attribution import Attributions, Completeness, attribute
from tests.attribution.networks import Linear, images


def test_it_is_kept_in_an_atlas(tmp_path):
    found = attribute(Linear(), images(3), 1)
    write_atlas(tmp_path / "maps.zarr", found)
    again = read_atlas(tmp_path / "maps.zarr")
    assert isinstance(again, Attributions)
    assert torch.equal(again.map, found.map)
    assert again.verdicts == ("complete",) * 3
    assert "3 complete" in repr(found)
    assert len(Attributions.cat([found[:1], found[1:]])) == 3
    assert all(code.meaning for code in Completeness)
