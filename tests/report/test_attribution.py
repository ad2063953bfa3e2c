"""The page of attributions: what it says of the verdicts, and that its maps are images of their own."""

import torch

from cfx.atlas import Atlas, write_atlas
from cfx.attribution import Attributions, attribute
from cfx.core.cohort import Cohort
from cfx.report.attribution import attribution_page, cards, sentences
from tests.attribution.networks import Linear, images


def test_sentences_count_every_verdict():
    found = attribute(Linear(), images(4), 1)
    mixed = found.replace(verdict=torch.tensor([0, 0, 1, 2]), remark=("", "", "", "no rule for softmax"))
    said = sentences(mixed)
    assert [s.split(":")[0] for s in said[:3]] == ["2 of 4 maps", "1 of 4 maps", "1 of 4 maps"]
    assert said[-1] == "Said of them: no rule for softmax."


def test_the_page_shows_maps_and_has_a_line_an_image(tmp_path):
    x = images(3)
    cohort = Cohort(x, ids=("a", "b", "<c>"), classes=["no", "yes", "perhaps"])
    made = write_atlas(tmp_path / "maps.zarr", attribute(Linear(), x, 1), cohort)
    atlas = Atlas(made.path, Attributions)
    shown = cards(atlas, atlas.read())
    assert [card.name for card in shown] == ["a", "b", "<c>"]
    assert all(card.map.startswith("data:image/png") and card.map != card.image for card in shown)
    assert dict(shown[0].facts)["class"] == "yes"
    page = attribution_page(atlas, "title", ["look here"])
    assert page.count('<th scope="row">') >= 3
    assert "&lt;c&gt;" in page
    assert "<c>" not in page
    assert "look here" in page
