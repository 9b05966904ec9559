"""Tables and JSON that come with a data set and say which of its images are test images."""

from __future__ import annotations

import json
from collections.abc import Callable
from glob import escape
from pathlib import Path
from typing import NamedTuple, TypeAlias

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.data.folders import NORMAL_WORDS
from aupimo_torchmetrics.evaluate.data.texts import read_rows, read_text

__all__ = ["SplitReader", "SplitRow", "real_iad_split", "visa_split"]


class SplitRow(NamedTuple):
    """A test image, as a split names it. Paths begin in the folder of the category, or with its name."""

    image: str
    mask: str
    """Path of its mask; empty if it has none."""
    has_defect: bool
    defect: str
    """Type of defect."""


SplitReader: TypeAlias = Callable[[Path, str], list[SplitRow] | None]
"""Reads the test images of a category, given with the folder of the data set; None if no split is there."""


def visa_split(root: Path, category: str) -> list[SplitRow] | None:
    """Read VisA's `split_csv/1cls.csv`."""
    path = next(iter(_beside(root, "split_csv/1cls.csv")), None)
    if path is None:
        return None
    columns, lines = read_rows(path)
    rows = []
    for line, cells in lines:
        if len(cells) != len(columns):
            raise BadDataError(f"Expected {path} to be a table in CSV, but could not read line {line}.")
        rows.append(dict(zip(columns, cells, strict=True)))
    for column in ("object", "split", "label", "image", "mask"):
        if column not in columns:
            raise BadDataError(
                f"Expected {path} to have a column {column!r}, but found {', '.join(columns) or 'none'}."
            )
    return _checked(
        path,
        category,
        [
            SplitRow(
                row["image"], row["mask"], row["label"].casefold() not in NORMAL_WORDS, Path(row["image"]).parent.name
            )
            for row in rows
            if row["split"] == "test" and row["object"] == category
        ],
    )


def real_iad_split(root: Path, category: str) -> list[SplitRow] | None:
    """Read the JSON of a category of Real-IAD, in `realiad_jsons` or the only other variant."""
    name = f"{escape(category)}.json"
    paths = _beside(root, f"realiad_jsons*/{name}", f"realiad_jsons*/realiad_jsons*/{name}")
    paths = [path for path in paths if path.parent.name == "realiad_jsons"] or paths
    if not paths:
        return None
    if len(paths) > 1:
        names = ", ".join(map(str, paths))
        raise BadDataError(f"Expected one JSON of the category {category}, but found {names}. Move the others away.")
    try:
        content = json.loads(read_text(paths[0]))
        normal = content.get("meta", {}).get("normal_class", "OK")
        rows = [
            SplitRow(
                row["image_path"], row.get("mask_path") or "", row["anomaly_class"] != normal, row["anomaly_class"]
            )
            for row in content["test"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadDataError(
            f"Expected {paths[0]} to be a JSON of Real-IAD, but could not read it: {error!r}."
        ) from error
    return _checked(paths[0], category, rows)


def _beside(root: Path, *patterns: str) -> list[Path]:
    """Find files by patterns in the folder of a data set, or else in the two folders above it."""
    for base in (root, *root.parents[:2]):
        found = [path for pattern in patterns for path in sorted(base.glob(pattern)) if path.is_file()]
        if found:
            return found
    return []


def _checked(path: Path, category: str, rows: list[SplitRow]) -> list[SplitRow]:
    """Raise unless each row holds texts, and its paths lead to no other folder."""
    for row in rows:
        for text in (row.image, row.mask, row.defect):
            if not isinstance(text, str) or text.startswith("/") or ".." in text.split("/"):
                raise BadDataError(f"Expected {path} to hold paths of images in {category}, but found {text!r}.")
    return rows
