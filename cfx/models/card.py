"""The model card of a checkpoint, written from its manifest."""

import html
from collections.abc import Mapping
from typing import Any

import yaml

from cfx.models.kinds import find


def model_card(title: str, manifest: Mapping[str, Any], text: str | None = None) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        title: Name of the checkpoint.
        manifest: Values of `cfx.json`.
        text: Opening paragraphs; a line on the kind of network by default.
    """
    provenance = dict(manifest["provenance"])
    figures = provenance.pop("figures", {})
    config = provenance.pop("config", None)
    title = _plain(title)
    front = yaml.safe_dump({"library_name": "cfx", "license": "apache-2.0", "tags": ["cfx", manifest["kind"]]})
    parts = [f"---\n{front}---\n# {title}", text or find(manifest["kind"]).use]
    parts.append('```python\nimport cfx.models\n\nmodel = cfx.models.load("checkpoints/' + title + '")\n```')
    facts = {k: manifest[k] for k in ("kind", "name", "shape", "classes", "facts") if manifest[k]}
    parts.append("## Network\n" + _rows(facts | {"keywords": manifest["config"]}))
    parts.append("## Training\n" + (_rows(provenance) or "Not recorded."))
    parts.append("## Figures\n" + (_rows(figures) or "None recorded."))
    if config:
        parts.append("## Configuration\n```yaml\n" + yaml.safe_dump(config, sort_keys=False) + "```")
    parts.append("## Limits\nResearch use only; not a medical device. Figures hold for data like the training data.")
    return "\n\n".join(parts) + "\n"


def _rows(values: Mapping[str, Any]) -> str:
    """One list item a value."""
    return "\n".join(f"- {_plain(key.replace('_', ' '))}: {_show(value)}" for key, value in values.items())


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_show(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_show(v) for v in value)
    return f"`{_plain(value)}`" if isinstance(value, str) else str(value)


def _plain(text: str) -> str:
    """A text that markdown takes for nothing but a text: no HTML, no end of a quotation, one line."""
    return " ".join(html.escape(text, quote=False).replace("`", "'").split())
