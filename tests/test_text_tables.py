"""Tables of texts stand in columns."""

import pytest

from aupimo_torchmetrics._text_tables import text_table


def test_columns_are_aligned_two_spaces_apart() -> None:
    """Texts begin and numbers end below each other, columns are two spaces apart, and no line ends in blanks."""
    rows = [("", "model", "mean", "note"), ("#1", "a", "0.5", ""), ("#2", "long name", "10.25", "last")]
    assert text_table(rows, "<<><").splitlines() == [
        "    model       mean  note",
        "#1  a            0.5",
        "#2  long name  10.25  last",
    ]


def test_every_line_is_indented() -> None:
    """The indentation stands before each line."""
    assert text_table([("a", "1"), ("b", "22")], "<>", indent=2) == "  a   1\n  b  22"


def test_a_table_without_rows_is_empty() -> None:
    """Nothing is laid out as nothing."""
    assert text_table([], "<>") == ""


@pytest.mark.parametrize("rows", [[("a", "b"), ("c",)], [("a",)], [("a", "b", "c")]])
def test_rows_must_fit_the_columns(rows: list[tuple[str, ...]]) -> None:
    """A row with more or fewer texts than columns is an error, and not a shifted table."""
    with pytest.raises(ValueError, match="argument"):
        text_table(rows, "<>")
