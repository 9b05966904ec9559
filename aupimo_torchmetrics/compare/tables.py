"""Tables for other programs: CSV, and LaTeX that needs no packages."""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["csv_table", "latex_table", "without_nan"]

LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row, LaTeX takes these for an option of the line break.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{character: f"\\{character}" for character in "_%&#${}"},
}
"""Characters that LaTeX does not print as they are, and what prints them."""


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV.

    Args:
        rows: Values by the names of the columns, the same in each row. None and NaN are empty fields.

    Returns:
        A line with the names and one for each row, in which numbers have all their digits.

    Example:
        >>> print(csv_table([{"model": "a,b", "mean": 0.5, "std": float("nan")}]), end="")
        model,mean,std
        "a,b",0.5,

    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([without_nan(row) for row in rows])
    return text.getvalue()


def latex_table(rows: Sequence[Sequence[str]], alignment: str, comment: str) -> str:
    r"""Write rows as a LaTeX `tabular`, for plain LaTeX.

    Args:
        rows: Lines of the table, from the top, of which the first is the head.
        alignment: One character for each column, as `tabular` takes them: `l` for texts and `r` for numbers.
        comment: Lines that stand before the table, each as a comment.

    Returns:
        The lines of the table. What LaTeX would not print as it is, such as `_` in a name, is escaped.

    Example:
        >>> print(latex_table([("model", "mean"), ("uflow_ext", "0.42")], "lr", "Best first."), end="")
        % Best first.
        \begin{tabular}{lr}
        \hline
        model & mean \\
        \hline
        uflow\_ext & 0.42 \\
        \hline
        \end{tabular}

    """
    head, *body = [" & ".join(map(latex_text, row)) + r" \\" for row in rows]
    comments = [f"% {line}" for line in comment.splitlines()]
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\hline", head, r"\hline", *body, r"\hline", r"\end{tabular}"]
    return "\n".join([*comments, *lines, ""])


def latex_text(text: str) -> str:
    """Escape what LaTeX would not print as it is."""
    printable = (character if character.isprintable() else " " for character in unicodedata.normalize("NFC", text))
    return "".join(LATEX_CHARACTERS.get(character, character) for character in printable)


def without_nan(value: Any) -> Any:
    """Replace NaN by None in a value made of mappings, lists, texts and numbers, because JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
