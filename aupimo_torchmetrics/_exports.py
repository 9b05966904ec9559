"""Texts for other programs: strict JSON, and CSV. What is not a number, or undefined, is null or empty there."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["csv_text", "json_text"]


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
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: None if _is_nan(value) else value for name, value in row.items()})
    return ("" if text.getvalue().isascii() else "\ufeff") + text.getvalue()


def _finite(content: Any) -> Any:
    """Replace numbers that are NaN or infinite by None, in lists and dicts too."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _is_nan(value: Any) -> bool:
    """Whether a value is a number that is not defined."""
    return isinstance(value, float) and math.isnan(value)
