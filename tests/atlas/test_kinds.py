"""Every kind of result an atlas can hold is found by its name, and is rows."""

import pytest

from cfx.atlas.kinds import KINDS, kind_of
from cfx.core.errors import AtlasError
from cfx.core.rows import Rows


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_a_class_of_rows_that_says_what_its_columns_mean(name):
    kind = kind_of(name)
    assert issubclass(kind, Rows)
    assert kind.__name__ == name
    columns = kind.columns()
    assert columns
    assert [c.name for c in columns if not c.meaning] == []
    arrays = [c.array for c in columns]
    assert len(arrays) == len(set(arrays))


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(AtlasError, match=r"expected an atlas of .*Counterfactuals or .*, got one of Nothing"):
        kind_of("Nothing")
