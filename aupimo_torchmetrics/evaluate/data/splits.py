"""Files that come with a data set and say which of its images are test images: VisA's table, and Real-IAD's JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import Any

import pandas as pd

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.data.folders import DataFolder, LabelledImage, as_name, is_file

__all__ = ["read_split"]

Row = tuple[str, str | None, str, bool]
"""Paths of a test image and of its mask, its type of defect, and whether this is one."""


def read_split(data: DataFolder, category: Path, pattern: str) -> list[LabelledImage] | None:
    """Read which images of a category are test images.

    Args:
        data: Folder of the data set. The file lies in it, or in one of the two folders above it.
        category: Folder of the category.
        pattern: Path of the file, in which `{category}` stands for the name.

    Returns:
        Test images; None if there is no such file.

    Raises:
        BadDataError: If there are several files, none of them in a folder called as the pattern begins; or if the file
            cannot be read, or holds paths that lead out of the category.

    """
    pattern = pattern.format(category=escape(category.name))
    found = (sorted(base.glob(pattern)) for base in (data.root, *data.root.parents[:2]))
    paths = next(filter(None, found), [])
    usual = pattern.partition("/")[0].rstrip("*")
    paths = [path for path in paths if path.parent.name == usual] or paths
    if len(paths) > 1:
        raise BadDataError(f"Expected one split of {category.name}, but found {', '.join(map(str, paths))}.")
    if not paths:
        return None
    rows = _rows_of_visa(data, paths[0], category.name) if paths[0].suffix == ".csv" else _rows_of_real_iad(paths[0])
    try:
        return [_image(data, category, row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadDataError(f"Expected {paths[0]} to name test images, but could not read it: {error!r}.") from error


def _rows_of_visa(data: DataFolder, path: Path, category: str) -> Iterator[Row]:
    """Yield the test images of a category in VisA's `1cls.csv`."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for image in table["image"][(table["split"] == "test") & (table["object"] == category)]:
        folder = Path(image).parent.name
        is_normal = data.is_normal(folder)
        mask = None if is_normal else Path(image.replace("/Images/", "/Masks/")).with_suffix(".png").as_posix()
        yield image, mask, folder, not is_normal


def _rows_of_real_iad(path: Path) -> Iterator[Row]:
    """Yield the test images in a JSON of Real-IAD."""
    content: Any = json.loads(path.read_bytes())
    normal = content.get("meta", {}).get("normal_class", "OK")
    for row in content["test"]:
        defect = row["anomaly_class"]
        yield row["image_path"], row.get("mask_path"), defect, defect != normal


def _image(data: DataFolder, category: Path, row: Row) -> LabelledImage:
    """Image of a row, whose paths begin in the folder of the category, or with its name."""
    image, mask, defect, has_defect = row
    base = category.parent if image.startswith(f"{category.name}/") else category
    path, masks = base / image, (base / mask,) if mask else ()
    for each in (path, *masks):
        if not Path(os.path.normpath(each)).is_relative_to(category):
            raise ValueError(f"{each} does not lie in {category}")
    facts = (masks, has_defect, as_name(defect))
    found = LabelledImage(data.name_of(path), as_name(category.name), path, *facts)
    return found if is_file(path) else found._replace(path=None, problem="in the split, but not on disk")
