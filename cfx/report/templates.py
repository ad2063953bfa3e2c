"""Pages from the templates of this room; `style.css` is written into each, so that a page needs nothing but itself."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(name: str, **values: object) -> str:
    """The text of the template `name`; every value is escaped."""
    environment = Environment(
        loader=PackageLoader("cfx", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name).render(**values)
