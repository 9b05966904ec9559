"""Tables of images with their masks and maps, by which any data set can be evaluated.

A table has a row for each image and these columns, in any order; others are not used, and named:

- `image` names the image. The file need not be there.
- `mask` is the file of its mask, or several with `;` between them, of which the union counts; empty if it is normal.
- `map` is the file of its map; needed unless maps are given by themselves.
- `label` is 0 (normal), 1 (with a defect), or a usual word for either; or `mask` where only the mask says it.
- `defect` is the type of defect, or `good` and its like. Without a label it says whether there is a defect; without
  either the mask says it.
- `category`, or `object`, is the name of the category. Without it, it is the name of the table.
- `split` says which images are test images: rows of any other split than `test` do not count.
- `name` names the image where its path should not.
- `score` is the score of the whole image, for metrics of images; without it, it is the highest score of the map.
- `group` names what an image shows, where several photographs show one part: intervals then draw parts, not images.
- `mask_classes` is 1 if a mask holds a number for each type of defect, as in MVTec LOCO, so that all but 0 is a defect.

All cells are texts. Paths are relative to the folder of the table, or for a table in memory to the current folder.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.writing import replacing
from aupimo_torchmetrics.evaluate.bad_files import BadFilesError
from aupimo_torchmetrics.evaluate.data.folders import NORMAL_WORDS, LabelledImage, as_name, is_file
from aupimo_torchmetrics.evaluate.maps.open import MapFiles, open_map_files
from aupimo_torchmetrics.evaluate.pairing import FoundPairs, Pair, bad_image, pair_maps

__all__ = ["open_table", "write_table"]

COLUMNS = ("image", "mask", "map", "label", "defect", "category", "split", "name", "score", "group", "mask_classes")
"""Columns that are read."""
DELIMITERS = (",", ";", "\t", "|")
"""What may stand between cells: the most frequent of these in the header."""
SEPARATOR = ";"
"""Stands between several masks of an image."""
TEST = "test"
"""The split, in any case, whose rows count."""
BY_MASK = "mask"
"""Label of an image of which only the mask says whether it has a defect."""
DEFECT_WORDS = ("anomalous", "anomaly", "abnormal", "defect", "defective", "bad", "ng", "ko")
"""Labels of images with a defect, in any case."""
LABELS: dict[str, bool | None] = {
    **dict.fromkeys(("0", "0.0", "false", *NORMAL_WORDS), False),
    **dict.fromkeys(("1", "1.0", "true", *DEFECT_WORDS), True),
    BY_MASK: None,
}
"""Whether an image has a defect, by its label in any case."""

TableLike: TypeAlias = "str | os.PathLike[str] | pd.DataFrame"
_Row: TypeAlias = dict[str, str]
"""Texts by column, for all of `COLUMNS`; and `place`, which row of which table it is."""


def open_table(table: TableLike, maps: MapFiles | None = None) -> FoundPairs:
    r"""Read a table of images, and find the map of each.

    Args:
        table: File of comma-separated values in UTF-8 with a header (`;`, `|` or tabs will do as well), or a pandas
            DataFrame, with the columns that `aupimo_torchmetrics.evaluate.data.table` lists.
        maps: Maps that are matched to the images by their paths. If None, the column `map` names the map of each image.

    Returns:
        Images with their maps, and notes on rows and columns that do not count. Bad files: images whose rows contradict
        themselves or each other, with their lines, and what `aupimo_torchmetrics.evaluate.pairing.pair_maps` finds.

    Raises:
        TypeError: If the table is neither a path nor a DataFrame.
        OSError: If the file cannot be read.
        BadDataError: If the file is no table, a column is missing or there twice, a row has more or fewer cells or no
            image, or no row is of a test image.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from aupimo_torchmetrics.evaluate.data.table import open_table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.tiff", "b.tiff", "b_mask.png"):
        ...         Path(folder, name).touch()
        ...     file = Path(folder, "parts.csv")
        ...     text = file.write_text("image,mask,map\na.png,,a.tiff\nb.png,b_mask.png,b.tiff\n")
        ...     paired = open_table(file)
        >>> [(pair.image.name, len(pair.image.masks), pair.name) for pair in paired.pairs]
        [('a.png', 0, 'a.tiff'), ('b.png', 1, 'b.tiff')]

    """
    title, folder, columns, lines = _read(table)
    used = [column for column in columns if column in COLUMNS and (column != "map" or maps is None)]
    needed = ["image", "mask", "map"] if maps is None else ["image", "mask"]
    if len({*used}) < len(used) or not {*needed} <= {*used}:
        raise BadDataError(
            f"Expected `table` to have columns {', '.join(needed)}, and none twice, but its columns are "
            f"{', '.join(columns) or 'none'}. Without a column map, give the maps as `maps`."
        )
    all_rows = _rows(columns, lines, title)
    rows = [row for row in all_rows if row["split"].casefold() == TEST]
    others = [row for row in all_rows if row["split"].casefold() != TEST]
    splits = Counter(row["split"] or "(none)" for row in others)
    found = ", ".join(f"{split} ({count})" for split, count in splits.items()) or "none"
    if not rows:
        raise BadDataError(f"Expected `table` to have rows of the split {TEST}, but found {found}.")
    notes = [f"rows of the table that are not of the split {TEST} do not count: {found}"] if others else []
    unused = ", ".join(column for column in columns if column and column not in used)
    notes += [f"columns of the table that are not used: {unused}"] if unused else []
    of_rows = zip(_images(rows, used, folder), (row["map"] for row in rows), strict=True)
    sorted_rows = sorted(of_rows, key=lambda each: (each[0].category, each[0].key, each[0].name))
    images = [image for image, _ in sorted_rows]
    if maps is None:
        maps = open_map_files([_file(name, folder) for _, name in sorted_rows], [name for _, name in sorted_rows])
        pairs = [Pair(image, index, maps.names[index]) for index, image in enumerate(images) if not image.problem]
        bad_files = [bad_image(image, image.problem) for image in images if image.problem]
    else:
        pairs, bad_files = pair_maps(maps, images)
        of_others = [LabelledImage(name, "", None, (), False) for name in _names(others, folder)]
        named_by_others = {pair.name for pair in pair_maps(maps, of_others)[0]}
        bad_files = [bad_file for bad_file in bad_files if bad_file.path not in named_by_others]
    return FoundPairs(pairs, bad_files, maps, images, notes)


def write_table(images: Sequence[LabelledImage], path: str | os.PathLike[str]) -> None:
    """Write the table that a data set amounts to, for `open_table`.

    Args:
        images: Test images, as from `aupimo_torchmetrics.evaluate.find_test_images`.
        path: File to write, with paths relative to its folder as far as possible. The folder is made if need be.

    Raises:
        OSError: If the file cannot be written.
        BadDataError: If a name is no Unicode.
        BadFilesError: If an image has a problem that a table cannot say; it can name a mask that is missing.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from aupimo_torchmetrics.evaluate import find_test_images
        >>> from aupimo_torchmetrics.evaluate.data.table import write_table
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ("test/good/000.png", "test/dirt/000.png", "ground_truth/dirt/000_mask.png"):
        ...         Path(root, "bottle", name).parent.mkdir(parents=True)
        ...         Path(root, "bottle", name).touch()
        ...     write_table(find_test_images(root), Path(root, "table.csv"))
        ...     print(Path(root, "table.csv").read_text())
        image,mask,label,category,defect,name,mask_classes
        bottle/test/dirt/000.png,bottle/ground_truth/dirt/000_mask.png,1,bottle,dirt,bottle/test/dirt/000.png,0
        bottle/test/good/000.png,,0,bottle,good,bottle/test/good/000.png,0
        <BLANKLINE>

    """
    problems = [bad_image(image, image.problem) for image in images if image.problem and not image.missing_mask]
    if problems:
        raise BadFilesError(problems, "a table can only be written without them")
    path = Path(path)
    folder = path.parent.resolve()
    rows = [
        {
            "image": image.name if image.path is None else _cell(image.path, folder),
            "mask": SEPARATOR.join(_cell(mask, folder) for mask in image.masks),
            "label": BY_MASK if image.has_defect is None else int(image.has_defect),
            "category": image.category,
            "defect": image.defect,
            "name": image.name,
            "mask_classes": int(image.has_mask_classes),
        }
        for image in images
    ]
    try:
        with replacing(path) as unfinished:
            pd.DataFrame(rows).to_csv(unfinished, index=False, lineterminator="\n")
    except UnicodeEncodeError as error:
        raise BadDataError(f"Expected names in Unicode, but got {error.object!r}, which no table can hold.") from error


def _read(table: TableLike) -> tuple[str, Path, list[str], list[tuple[str, list[str]]]]:
    """Title, folder that paths are relative to, columns, and the place and cells of each row."""
    if isinstance(table, pd.DataFrame):
        title, folder, columns = "table", Path.cwd(), [str(column) for column in table.columns]
        texts = table.astype(object).where(table.notna(), "").astype(str)
        lines = [(f"table, row {index}", list(cells)) for index, *cells in texts.itertuples()]
    else:
        path = Path(table)
        title, folder = as_name(path.stem), path.parent.resolve()
        (_, columns), *lines = _read_csv(path) or [("", [])]
    columns = [column.strip().lower() for column in columns]
    if "category" not in columns:
        columns = ["category" if column == "object" else column for column in columns]
    return title, folder, columns, lines


def _read_csv(path: Path) -> list[tuple[str, list[str]]]:
    """Place and cells of each row that is not empty, and of the header; a row of several lines ends at its place.

    (The reader is Python's: that of pandas does not say at which line a row is, fills short rows, and takes a first
    column without a name for an index.)
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadDataError(f"Expected {path} to be a text in UTF-8, but it is in UTF-16, or another form.") from error
    header, _, _ = text.lstrip().partition("\n")
    if header.startswith(("{", "[")):
        raise BadDataError(f"Expected {path} to be a table in CSV, with a header as `image,mask,map`, but it is JSON.")
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        return [(f"{path}, line {reader.line_num}", cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise BadDataError(f"Expected {path} to be CSV, but could not read line {reader.line_num}: {error}.") from error


def _rows(columns: Sequence[str], lines: Sequence[tuple[str, list[str]]], title: str) -> list[_Row]:
    """Texts of each row by column."""
    rows = []
    for place, cells in lines:
        texts = [cell.strip() for cell in cells]
        row = {**dict.fromkeys(COLUMNS, ""), "split": TEST, **dict(zip(columns, texts, strict=False)), "place": place}
        if len(cells) != len(columns) or not row["image"]:
            raise BadDataError(f"Expected an image and {len(columns)} cells, but {place} has {', '.join(cells)!r}.")
        rows.append(row | {"category": as_name(row["category"]) or title})
    return rows


def _images(rows: Sequence[_Row], used: Collection[str], folder: Path) -> Iterator[LabelledImage]:
    """Yield the image of each row, with what is wrong with the row."""
    names = _names(rows, folder)
    maps = [_file(row["map"], folder) if row["map"] and "map" in used else None for row in rows]
    scores = pd.to_numeric(pd.Series([row["score"] for row in rows], dtype=object), errors="coerce")
    num_names, num_maps = Counter(names), Counter(maps)
    for row, name, map_file, score in zip(rows, names, maps, scores, strict=True):
        file = _file(row["image"], folder)
        masks = [row["mask"]] if is_file(_file(row["mask"], folder)) else row["mask"].split(SEPARATOR)
        label, category, mask_classes = row["label"].lower(), row["category"], row["mask_classes"].lower()
        image = LabelledImage(
            name=name,
            category=category,
            path=file if is_file(file) else None,
            masks=tuple(_file(mask, folder) for mask in masks if mask.strip()),
            has_defect=_has_defect(row),
            defect=as_name(row["defect"]) or None,
            has_mask_classes=LABELS.get(mask_classes) is True,
            place=row["place"],
            score=None if pd.isna(score) else float(score),
            group=row["group"] or None,
        )
        problems = {
            f"the label {label!r} is neither 0 (normal) nor 1 (with a defect)": label not in {"", *LABELS},
            "with a defect, or by its mask, but there is no mask": image.has_defect is not False and not image.masks,
            f"no score: {row['score']!r} is no number": "score" in used and image.score is None,
            f"mask_classes is {mask_classes!r}, neither 0 nor 1": mask_classes and LABELS.get(mask_classes) is None,
            f"the category {category!r} cannot be a folder": category in {".", ".."} or {*category} & {"/", "\\"},
            f"its mask {image.missing_mask} is missing": image.missing_mask is not None,
            "an image that another row names, too": num_names[name] > 1,
            "no map": "map" in used and map_file is None,
            f"its map {map_file} is missing": map_file is not None and not is_file(map_file),
            "a map that another row names, too": map_file is not None and num_maps[map_file] > 1,
            "its map and its mask are one file": map_file in image.masks,
        }
        yield image._replace(problem="; ".join(text for text, is_so in problems.items() if is_so) or None)


def _has_defect(row: _Row) -> bool | None:
    """Whether an image has a defect, by its label, or else by its type of defect; None if only the mask says it."""
    if row["label"]:
        return LABELS.get(row["label"].lower())
    if row["defect"]:
        return LABELS.get(row["defect"].partition("/")[0].lower()) is not False
    return None if row["mask"] else False


def _file(cell: str, folder: Path) -> Path:
    """File that a cell names, which may be written by Windows."""
    return Path(os.path.normpath(folder / cell.strip().replace("\\", "/")))


def _names(rows: Sequence[_Row], folder: Path) -> list[str]:
    """Names of images: their paths relative to the folder, or if one lies elsewhere to the folder they all lie in."""
    files = [_file(row["image"], folder) for row in rows]
    parents = {file.parent for file in files}
    is_inside = all(parent.is_relative_to(folder) for parent in parents)
    base = folder if is_inside else Path(os.path.commonpath(parents))
    return [as_name(row["name"] or file.relative_to(base).as_posix()) for row, file in zip(rows, files, strict=True)]


def _cell(path: Path, folder: Path) -> str:
    """Path relative to a folder."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return path.as_posix()
