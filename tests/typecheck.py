"""The type checker of the test run: beartype, told to pass over `Self`.

The import hook hands methods over one by one, without the class that `Self` stands for, which beartype refuses.
"""

from typing import Self, get_args

from beartype import beartype


def check(function):
    """Check the arguments and the result of a function whenever it is called."""
    hints = getattr(function, "__annotations__", None)
    if isinstance(hints, dict):
        function.__annotations__ = {name: hint for name, hint in hints.items() if not _names_self(hint)}
    return beartype(function)


def _names_self(hint) -> bool:
    return hint is Self or any(_names_self(inner) for inner in get_args(hint))
