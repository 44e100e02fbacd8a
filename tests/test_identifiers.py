"""Ids that others choose."""

import pytest

from visa_jupyter_proxy.identifiers import LONGEST_ID, storable

ODD = ("k" * 151, "k" * 100_000, "\0", "\udc80", "é\n" * 90)


@pytest.mark.parametrize("text", ["", "anna", "é" * LONGEST_ID])
def test_what_can_be_kept_stays(text: str) -> None:
    """Nothing is done to an id that every database can keep."""
    assert text == storable(text)


@pytest.mark.parametrize("text", ODD)
def test_odd_text_is_made_storable_and_recognisably_no_id(text: str) -> None:
    """One character longer than the longest id, printable, and different for different text."""
    assert LONGEST_ID + 1 == len(storable(text))
    assert storable(text).isprintable()
    assert storable(text) != storable(text + "x")


@pytest.mark.parametrize("text", ODD)
def test_what_was_shortened_names_the_same(text: str) -> None:
    """Whoever copies it from a list asks for the same user."""
    assert storable(text) == storable(storable(text))
