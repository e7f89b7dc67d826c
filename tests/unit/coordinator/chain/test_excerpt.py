"""What is left of an answer for which there is not enough room."""

import pytest

from coordinator.chain.excerpt import MARK, excerpt

LONG = (
    "First we look at the matter. It is not simple. Many people have thought about it for long. "
    'The dose is 3.5 mg for each kg, so 3.5 * 20 = 70 mg. They said "never more than that. Ever." '
    "Some more words that nobody needs follow here. And then some more of the same kind. "
    "In the end it comes to this. Take 70 mg a day."
)


def test_what_fits_is_left_alone() -> None:
    assert excerpt(LONG, len(LONG)) == LONG
    assert excerpt("", 0) == ""


def test_the_end_then_numbers_and_quotations_come_first() -> None:
    found = excerpt(LONG, 190)
    assert len(found) <= 190
    assert found.endswith("In the end it comes to this. Take 70 mg a day.")
    assert "3.5 * 20 = 70 mg." in found
    assert '"never more than that. Ever."' in found
    assert "words that nobody needs" not in found
    assert found.startswith(MARK)


def test_code_stays_whole_or_goes() -> None:
    code = "```python\nfor i in range(10):\n    print(i)\n\nprint('done')\n```\n"
    text = f"Here it is. It took a while to write this one.\n{code}That prints ten numbers. Good."
    assert code in excerpt(text, len(code) + 60)
    assert "```" not in excerpt(text, len(code) - 10)


def test_code_without_an_end_is_code_to_the_end() -> None:
    text = "Some words come before the code. Here:\n```\na = 1\n\nb = 2"
    assert excerpt(text, 40).endswith("```\na = 1\n\nb = 2")


@pytest.mark.parametrize("most", [0, 5, 12, 20, 33])
def test_one_endless_sentence_keeps_its_end_and_no_half_number(most: int) -> None:
    text = "word " * 50 + "and 1 000 000.50 at the end"
    found = excerpt(text, most)
    assert len(found) <= most
    assert not found or found == MARK + text[-(len(found) - len(MARK)) :]
    assert not any(found.startswith(MARK + half) for half in ("000", "00", "0", "50", "5"))
