"""Pages escape what they show, carry their own style, and do not pass over a value that is missing."""

import base64
import hashlib
import re
import sys
from html import unescape

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from cfx.display.templates import render


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A package with a template."""
    package = tmp_path / "toy_room"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "page.html.j2").write_text(
        "{% if title %}\n<p>{{ title }}</p>\n{% endif %}\n{% include 'style.css' %}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "toy_room"
    sys.modules.pop("toy_room", None)


def test_values_are_escaped_and_the_style_is_written_in(room, root):
    text = render(room, "page.html.j2", title="<script>a & b</script>")
    assert text.startswith("<p>&lt;script&gt;a &amp; b&lt;/script&gt;</p>\n")  # and no blank line where a block was
    assert text.removesuffix("\n").endswith((root / "cfx" / "display" / "style.css").read_text().removesuffix("\n"))


def test_a_value_that_is_missing_is_no_blank(room):
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        render(room, "page.html.j2")


def test_a_template_that_is_missing_is_named(room):
    with pytest.raises(TemplateNotFound, match=r"other\.html"):
        render(room, "other.html")


def test_the_policy_of_a_page_names_the_hash_of_what_is_written_into_it(room, tmp_path):
    script = "const a = '<b>' && 1;\n"
    (tmp_path / "toy_room" / "own.js").write_text(script)
    (tmp_path / "toy_room" / "page.html.j2").write_text(
        "{% extends 'page.html.j2' %}{% block policy %}{{ hash_of('own.js') }}{% endblock %}"
        "{% block after %}<script>{{ verbatim('own.js')|safe }}</script>{% endblock %}"
    )
    text = render_own(room, tmp_path)
    policy = unescape(re.search(r'Content-Security-Policy" content="(.*?)"', text)[1])
    for tag in ("style", "script"):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert script in text
    assert policy.startswith("default-src 'none'; img-src data:;")


def render_own(room, tmp_path):
    """A page of a room on the frame of all pages."""
    page = tmp_path / "toy_room" / "page.html.j2"
    page.rename(page.with_name("own.html.j2"))
    return render(room, "own.html.j2", title="t")
