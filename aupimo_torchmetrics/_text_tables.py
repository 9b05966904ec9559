"""One layout for all tables that are printed as text."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "
"""What stands between two columns."""


def text_table(rows: Sequence[Sequence[str]], alignment: str, indent: int = 0) -> str:
    """Lay out texts in columns, each as wide as its longest text.

    Args:
        rows: Lines of the table, from the top; its head is a row like the others. Each has a text for each column,
            which may be empty.
        alignment: One character for each column: `"<"` for texts, which begin below each other, `">"` for numbers,
            which end below each other.
        indent: Number of spaces before each line.

    Returns:
        Lines without spaces at their ends, joined by line breaks. Columns are two spaces apart.

    Raises:
        ValueError: If a row has more or fewer texts than there are columns.

    Example:
        >>> print(text_table([("model", "mean"), ("padim", "0.042"), ("uflow", "0.5")], alignment="<>", indent=4))
            model   mean
            padim  0.042
            uflow    0.5

    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        " " * indent
        + GAP.join(f"{text:{side}{width}}" for text, side, width in zip(row, alignment, widths, strict=True)).rstrip()
        for row in rows
    )
