"""What the log says of our own mistakes."""

import pytest

from protocols.defects import describe


def fail() -> None:
    raise LookupError("the user's secret prompt")


def test_a_defect_is_described_by_place_not_by_text() -> None:
    with pytest.raises(LookupError) as raised:
        fail()
    words = describe(raised.value)
    assert words.startswith("LookupError at test_defects.py:")
    assert "in fail < test_defects.py" in words
    assert "test_a_defect_is_described" in words
    assert "secret" not in words


def test_an_error_that_was_never_raised_can_be_described() -> None:
    assert describe(ValueError("x")) == "ValueError at an unknown place"
