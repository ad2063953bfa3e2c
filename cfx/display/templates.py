"""Pages from the templates of a room; `style.css` is written into each, so that a page needs nothing but itself."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def render(room: str, name: str, **values: object) -> str:
    """The text of a template; every value is escaped.

    Args:
        room: Package that holds it, such as `cfx.report`.
        name: Its file.
        values: What it shows.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(room, ""), PackageLoader("cfx.display", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)
