"""JSON and CSV for other programs are strict, and give back what was written."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from aupimo_torchmetrics._exports import csv_text, json_text


def test_json_has_null_for_what_is_no_number_at_every_depth() -> None:
    """Lists, tuples and mappings are searched, and texts stay as they are."""
    text = json_text({"a": [math.nan, (1.0, {"b": math.nan, "c": -math.inf})], "d": "NaN", "ü": True})
    assert json.loads(text) == {"a": [None, [1.0, {"b": None, "c": None}]], "d": "NaN", "ü": True}
    assert "NaN," not in text
    assert "ü" in text


@pytest.mark.parametrize("name", ["plain", "a,b", 'a"b', "a;b", "a\nb", " a ", "tür", "裂", "-"])
def test_csv_keeps_awkward_names(name: str) -> None:
    """Whatever a name holds, a CSV reader gives it back, and it finds the first column."""
    text = csv_text([{"model": name, name: 0.1 + 0.2, "std": math.nan, "rank": None}])
    assert text.startswith("\ufeff") is not name.isascii()
    (row,) = csv.DictReader(io.StringIO(text.encode().decode("utf-8-sig"), newline=""))
    assert row == {"model": name, name: "0.30000000000000004", "std": "", "rank": ""}
