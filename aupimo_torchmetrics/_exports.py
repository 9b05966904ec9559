"""Texts for other programs: strict JSON, and CSV. What is not a number, or undefined, is null or empty there."""

from __future__ import annotations

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
