"""Tables as text for people, and strict JSON and CSV for programs, in which what is undefined is null or empty."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["csv_text", "interval_text", "json_text", "metric_title", "score_text", "text_table"]


def interval_text(low: float, high: float, form: str = ".3f") -> str:
    """Write an interval, each end in a form.

    Example:
        >>> from aupimo_torchmetrics._tables import interval_text
        >>> interval_text(0.25, 0.5), interval_text(0.25, float("nan"))
        ('0.250 to 0.500', 'not known')

    """
    return "not known" if math.isnan(low + high) else f"{low:{form}} to {high:{form}}"


def metric_title(metric: str) -> str:
    """Name a metric at the head of a column.

    Example:
        >>> from aupimo_torchmetrics._tables import metric_title
        >>> metric_title("f1_max")
        'F1 MAX'

    """
    return metric.upper().replace("_", " ")


def score_text(score: float, digits: int = 2) -> str:
    """Write a score with some decimals; a smaller one than these can show in scientific form, and 0 alone as `0`.

    A model without skill has an AUPIMO of 3.9e-05 at the default bounds, which `0.00` would hide.

    Example:
        >>> from aupimo_torchmetrics._tables import score_text
        >>> score_text(0.5), score_text(3.9e-5), score_text(0.0)
        ('0.50', '3.9e-05', '0')

    """
    return "0" if score == 0 else f"{score:.1e}" if abs(score) < 10**-digits else f"{score:.{digits}f}"


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
        + "  ".join(f"{text:{side}{width}}" for text, side, width in zip(row, alignment, widths, strict=True)).rstrip()
        for row in rows
    )


def json_text(content: Any) -> str:
    """Write lists, dicts, texts and numbers as strict JSON, in which NaN and infinite numbers are null.

    Example:
        >>> print(json_text({"model": "a", "std": float("nan")}))
        {
          "model": "a",
          "std": null
        }

    """
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV.

    Args:
        rows: One row or more: values by the names of the columns, the same in each row. None and NaN are empty fields.

    Returns:
        A line with the names and one for each row, in which numbers have all their digits. If not all characters are
        ASCII, it begins with a byte-order mark, without which Excel takes it for a file in the code page of the system.

    Example:
        >>> print(csv_text([{"model": "a,b", "mean": 0.5, "std": float("nan")}]), end="")
        model,mean,std
        "a,b",0.5,

    """
    import pandas as pd  # noqa: PLC0415

    text = str(pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n"))
    return ("" if text.isascii() else "\ufeff") + text


def _finite(content: Any) -> Any:
    """Replace numbers that are NaN or infinite by None, in lists and dicts too."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
