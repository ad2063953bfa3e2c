"""Pages escape what they show, carry their own style, and do not pass over a value that is missing."""

import sys

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
