"""Codes and words that say what they mean."""

from cfx.core.codes import Code, Word


class State(Code):
    """A code of two states."""

    OFF = 0, "Nothing runs."
    ON = 1, "It runs."


class Answer(Word):
    """A word of two answers."""

    YES = "yes", "So it is."
    NO = "no", "It is not."


def test_a_code_is_its_number_and_has_a_meaning():
    assert State(1) is State.ON
    assert State.ON == 1
    assert [s.meaning for s in State] == ["Nothing runs.", "It runs."]


def test_a_word_is_its_text_and_has_a_meaning():
    assert Answer("no") is Answer.NO
    assert f"{Answer.NO}" == "no"
    assert Answer.NO.meaning == "It is not."
