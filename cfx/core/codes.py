"""Enumerations whose members say what they mean: a code, or a word, and a sentence."""

from enum import IntEnum, StrEnum
from typing import Self


class Code(IntEnum):
    """Base of numbers that stand for something: `FLIPPED = 0, "The classifier reaches ..."`."""

    meaning: str

    def __new__(cls, code: int, meaning: str = "") -> Self:
        """A code with its meaning."""
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning = meaning
        return made


class Word(StrEnum):
    """Base of words that stand for something, likewise."""

    meaning: str

    def __new__(cls, word: str, meaning: str = "") -> Self:
        """A word with its meaning."""
        made = str.__new__(cls, word)
        made._value_ = word
        made.meaning = meaning
        return made
