"""Files that come with a data set and say which of its images are test images: VisA's table, and Real-IAD's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.data.texts import read_rows, read_text

__all__ = ["SplitRow", "read_split"]


class SplitRow(NamedTuple):
    """A test image. Paths begin in the folder of its category, or with the name of it."""

    image: str
    mask: str | None = None
    """Mask of the image; None if it has none, or where the folders say it."""
    defect: str | None = None
    """Type of defect; None where the folders say it."""
    has_defect: bool | None = None
    """Whether this type is a defect; None where the folders say it."""


def read_split(root: Path, category: str, pattern: str) -> list[SplitRow] | None:
    """Read which images of a category are test images.

    Args:
        root: Folder of the data set. The file lies in it, or in one of the two folders above it.
        category: Name of the folder of the category.
        pattern: Path of the file, in which `{category}` stands for the name.

    Returns:
        Test images; None if there is no such file.

    Raises:
        BadDataError: If there are several files, none of them in a folder called as the pattern begins; or if the file
            cannot be read, or holds paths that lead out of the data set.

    """
    found = (list(base.glob(pattern.format(category=escape(category)))) for base in (root, *root.parents[:2]))
    paths = sorted(next(filter(None, found), []))
    usual = pattern.partition("/")[0].rstrip("*")
    paths = [path for path in paths if path.parent.name == usual] or paths
    if len(paths) > 1:
        names = ", ".join(map(str, paths))
        raise BadDataError(f"Expected one split of the category {category}, but found {names}. Move the others away.")
    if not paths:
        return None
    (path,) = paths
    try:
        rows = list(_rows_of_visa(path, category) if path.suffix == ".csv" else _rows_of_real_iad(path))
    except BadDataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadDataError(f"Expected {path} to name test images, but could not read it: {error!r}.") from error
    for text in (text for row in rows for text in row[:3] if text is not None):
        if not isinstance(text, str) or text.startswith("/") or ".." in text.split("/"):
            raise BadDataError(f"Expected {path} to hold paths of images in {category}, but found {text!r}.")
    return rows


def _rows_of_visa(path: Path, category: str) -> Iterator[SplitRow]:
    """Yield the test images of a category in VisA's `1cls.csv`."""
    columns, lines = read_rows(path)
    for _, cells in lines:
        row = dict(zip(columns, cells, strict=True))
        if row["split"] == "test" and row["object"] == category:
            yield SplitRow(row["image"])


def _rows_of_real_iad(path: Path) -> Iterator[SplitRow]:
    """Yield the test images in a JSON of Real-IAD."""
    content: Any = json.loads(read_text(path))
    normal = content.get("meta", {}).get("normal_class", "OK")
    for row in content["test"]:
        defect = row["anomaly_class"]
        yield SplitRow(row["image_path"], row.get("mask_path"), defect, defect != normal)
