"""Sentences: what they say is what was drawn."""

import pytest
import torch

from cfx.report.segmentation.words import least_sure_first, noun_of, of_all, of_image, said, share_of, size_word
from tests.report.segmentation.hand_made import cohort, drawn, rows, summary

BINARY = ("background", "lesion")


def figures_of(i: int) -> dict[str, float]:
    return {name: float(value[i]) for name, value in rows(drawn(), cohort()).items()}


def test_of_one_image_it_is_said_whether_there_is_one_how_large_and_how_alike():
    torn = of_image(figures_of(0), 4, BINARY, "mm^2", 0.9)
    assert torn[0] == "Of 4 drawn outlines 3 hold a lesion; its area is 2.42 mm² on average, 9 of 10 between 1 and 4."
    assert torn[1] == "Two of them share 42 % of what either covers."  # (4/9 + 4/16 + 9/16) / 3
    sure = of_image(figures_of(1), 4, BINARY, "mm^2", 0.9)
    assert sure[0].startswith("All 4 drawn outlines hold a lesion; its area is 4 mm²")
    assert sure[1] == "Two of them share 100 % of what either covers."
    assert of_image(figures_of(2), 4, BINARY, "mm^2", 0.9) == [
        "The network's answer was not finite; nothing was drawn."
    ]


def test_none_and_one_are_said_as_such():
    empty = figures_of(0) | {"empty_share": 1.0, "agreement": torch.nan}
    assert of_image(empty, 4, BINARY, "mm^2", 0.9) == ["None of 4 drawn outlines holds a lesion."]
    one = figures_of(0) | {"empty_share": 0.75, "agreement": torch.nan}
    assert len(of_image(one, 4, BINARY, "mm^3", 0.9)) == 1
    assert "Of 4 drawn outlines 1 holds a lesion; its volume is" in of_image(one, 4, BINARY, "mm^3", 0.9)[0]


def test_several_classes_are_said_one_by_one():
    labels = ("background", "core", "rim")
    values = {"empty_share": 0.0, "agreement": 0.5} | {
        f"{name}_{label}": v
        for label, v in (("core", 3.0), ("rim", torch.nan))
        for name in ("volume", "volume_from", "volume_to")
    }
    (first, _) = of_image(values, 4, labels, "voxels", 0.8)
    assert first == (
        "All 4 drawn outlines hold anything; the volume of core is 3 voxels on average, 8 of 10 between 3 and 3; none "
        "of them holds rim."
    )


def test_of_many_images_agreement_comes_first_and_readers_last():
    values = rows(drawn(), cohort())
    found = of_all(drawn(), values, summary(values))
    assert found[0].startswith("Two drawn outlines of an image share 71 % of what either covers")
    assert found[1].startswith("In 1 of 2 images all 4 drawn outlines hold a region, in 0 none does; in 1 (50 %, 95 %")
    assert found[2].startswith(
        "The area is 3.21 mm² on average; 9 of 10 of the outlines of an image lie within 1.5 mm²"
    )
    assert "the readers: two of an image are" in found[3]
    assert found[4:] == [
        "In 1 image all outlines are equal.",
        "In 1 image the network's answer was not finite; figures leave them out.",
    ]
    alone = rows(drawn(), cohort(readers=False))
    assert not any("reader" in sentence for sentence in of_all(drawn(), alone, summary(alone)))


def test_one_image_is_spoken_of_as_one():
    one, images = drawn()[:1], cohort()[:1]
    values = rows(one, images)
    assert of_all(one, values, summary(values))[0].startswith("Of 4 drawn outlines 3 hold a region")


@pytest.mark.parametrize(
    ("ours", "word"), [(0.2, "are surer than"), (0.4, "differ about as much as"), (0.7, "are less sure than")]
)
def test_diversity_is_compared_with_the_readers(ours, word):
    values = rows(drawn(), cohort())
    found = of_all(drawn(), values, summary(values) | {"diversity": ours, "reader_diversity": 0.4})
    assert any(f"Drawn outlines {word} the readers" in sentence for sentence in found)


def test_nothing_drawn_anywhere_is_said():
    refused = drawn()[[2, 2]].replace(row=torch.arange(2))
    values = rows(refused, cohort()[[2, 2]])
    found = of_all(refused, values, {"volume_unit": "pixels", "level": 0.9})
    assert found[0] == "No outline could be drawn in any of 2 images."


def test_words_of_levels_units_and_nouns():
    assert (share_of(0.9), share_of(0.95), share_of(0.85)) == ("9 of 10", "19 of 20", "85 %")
    assert (said("mm^2"), said("mm^3"), said("voxels")) == ("mm²", "mm³", "voxels")
    assert (noun_of(("b", "ulcer")), noun_of(BINARY), noun_of(("b", "x", "y"))) == ("an ulcer", "a lesion", "anything")
    assert [size_word(unit) for unit in ("mm^2", "pixels", "mm^3", "voxels")] == ["area", "area", "volume", "volume"]


def test_the_least_sure_comes_first_and_refused_ones_last():
    assert least_sure_first(rows(drawn(), cohort())) == [0, 1, 2]
    assert least_sure_first({"diversity": torch.tensor([torch.nan, 0.1, 0.4])}) == [2, 1, 0]
