"""Tables in LaTeX that needs no packages."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["latex_table"]

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
