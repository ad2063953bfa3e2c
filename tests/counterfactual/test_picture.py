"""A notebook shows the first rows of a result: four pictures each, all names escaped, any number of rows."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from cfx.counterfactual.picture import SHOWN
from tests.counterfactual.toys import explain_toys


@pytest.fixture(scope="module")
def result():
    return explain_toys(6).replace(standing={})  # of toys it is said that they are no explanation


def pictures(text):
    found = re.findall(r'src="data:image/png;base64,([^"]+)" alt="(\w+)"', text)
    return [(kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))) for data, kind in found]


def test_each_of_the_first_rows_has_its_pictures(result):
    shown = pictures(result._repr_html_())
    assert [kind for kind, _ in shown] == ["input", "counterfactual", "difference", "read"] * SHOWN
    for i in range(SHOWN):
        for (_, pixels), image in zip(shown[4 * i : 4 * i + 2], (result.x, result.x_cf), strict=False):
            wanted = (image[i, 0].clamp(-1, 1) + 1) / 2 * 255
            assert (torch.from_numpy(pixels.astype("float32")) - wanted).abs().max() <= 1
    assert pictures(result[:0]._repr_html_()) == []
    assert len(pictures(result[:1]._repr_html_())) == 4
    assert len(pictures(result[:1].replace(read=None)._repr_html_())) == 3  # by a method that nobody asked for parts


def test_names_are_texts_not_markup(result):
    named = result.of_cohort(result.cohort.replace(ids=("<i>",) * 6, classes=["<b>", "ill"]))
    text = named._repr_html_()
    assert "&lt;i&gt;" in text
    assert "<i>" not in text
    assert "<b>" not in text
    assert "to ill: flipped" in text or "to ill: already" in text


def test_volumes_are_shown_by_three_planes(result):
    volume = result[:1].replace(
        x=result.x[:1, :, None].repeat(1, 1, 5, 1, 1), x_cf=result.x_cf[:1, :, None].repeat(1, 1, 5, 1, 1),
        edited=result.edited[:1, :, None].repeat(1, 1, 5, 1, 1), read=result.read[:1, :, None].repeat(1, 1, 5, 1, 1),
        cohort=None,
    )  # fmt: skip
    assert all(pixels.shape[1] > 8 for _, pixels in pictures(volume._repr_html_()))


def test_what_is_read_of_the_difference_is_shown_by_itself(result):
    read = result.edited.clone()
    read[..., : read.shape[-1] // 2] = False
    shown = pictures(result.replace(read=read)._repr_html_())
    assert [kind for kind, _ in shown[:4]] == ["input", "counterfactual", "difference", "read"]
    unjudged = result.replace(read=read, standing={"reasons": {"competence": "near <chance>"}})._repr_html_()
    assert len(pictures(unjudged)) == 3 * SHOWN
    assert "not judged (near &lt;chance&gt;)" in unjudged
    whole, part = (torch.from_numpy(pixels.astype("float32")) for _, pixels in shown[2:4])
    half = whole.shape[1] // 2
    assert torch.equal(part[:, half:], whole[:, half:])
    assert (part[:, :half] == part[0, 0]).all()
