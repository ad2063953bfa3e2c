"""Pages from the templates of a room, each a file that needs nothing but itself.

`page.html.j2` is the frame of every page: `style.css` and a script of the room are written into it, and its
Content-Security-Policy names their hashes, so that a browser runs and loads nothing else.
"""

import base64
import hashlib

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined


def render(room: str, name: str, **values: object) -> str:
    """The text of a template; every value is escaped.

    A template may write another file of its room or of this one as it is, `{{ verbatim("style.css")|safe }}`, and name
    its hash as a policy does, `{{ hash_of("style.css") }}`.

    Args:
        room: Package that holds it, such as `cfx.report`.
        name: Its file.
        values: What it shows.
    """
    loader = ChoiceLoader([PackageLoader(room, ""), PackageLoader("cfx.display", "")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )

    def verbatim(file: str) -> str:
        return _source(environment, loader, file)

    def hash_of(file: str) -> str:
        return _hash(_source(environment, loader, file))

    return environment.get_template(name).render(verbatim=verbatim, hash_of=hash_of, **values)


def _source(environment: Environment, loader: BaseLoader, file: str) -> str:
    return loader.get_source(environment, file)[0]


def _hash(text: str) -> str:
    """How a Content-Security-Policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
