"""What is read of a change is said with its figures, row by row and over all rows, and nothing where nobody knows."""

import pytest
import torch

from cfx.counterfactual.reading import Reading
from cfx.report.reading import ORDER, Parts, parts, run_sentence
from tests.report.hand_made import divided, make


def test_a_row_says_what_each_part_does_alone() -> None:
    found = parts(divided()[0])
    named = {i: part.word for i, part in enumerate(found) if part.word}
    assert named == {0: "carried", 2: "redundant", 3: "whole", 5: "carried", 7: "redundant", 8: "whole"}
    assert found[0].sentence == (
        "The classifier reads 19 % of the change. That part alone brings 93 % of its change of mind, the rest alone "
        "4 %: the generator added it."
    )
    assert found[2].sentence.endswith(
        "91 % of its change of mind, the rest alone 63 %: it moves the classifier as well."
    )
    assert found[3].sentence.endswith("the rest alone 7 %: most of what is shown is read.")
    assert (found[2].error, found[1]) == ("7.0 %", Parts())


@pytest.mark.parametrize(("rest", "said"), [(-0.004, "0 %"), (-0.02, "-2 %"), (1.013, "101 %")])
def test_what_the_rest_brings_may_be_less_than_nothing_and_more_than_all(rest: float, said: str) -> None:
    result = divided()[0]
    assert result.rest_alone is not None
    assert (
        parts(result.replace(rest_alone=torch.where(result.rest_alone == 0.04, rest, result.rest_alone)))[0].rest
        == said
    )


def test_a_result_without_parts_says_nothing_of_them() -> None:
    result, _ = make()
    assert parts(result) == [Parts()] * 10
    assert run_sentence(result) == ""
    nan = torch.full((10,), torch.nan)
    assert run_sentence(divided()[0].replace(read_share=nan, rest_alone=nan)) == ""


def test_a_run_counts_every_way_among_the_rows_that_were_changed() -> None:
    result, _ = divided()
    assert run_sentence(result) == (
        "In 2 of 6 rows the classifier reads only part of the change (19 % of it on average): the rest does nothing by "
        "itself, the generator carries it along. In 2 of 6 rows a part of the change (21 % of it on average) is enough "
        "for the classifier, and the rest alone moves it as well. In 2 of 6 rows the classifier reads most of the "
        "change (92 % of it on average)."
    )
    both, one = run_sentence(result[[0, 5]]), run_sentence(result[[0]])
    assert both.startswith("In all 2 rows the classifier reads only part of the change (19 % of it on average):")
    assert one.startswith("In this row the classifier reads only part of the change (19 % of it):")


def test_every_reading_that_is_one_has_its_place() -> None:
    assert {*ORDER} == {*Reading} - {Reading.NONE}
