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
- `mask_classes` is 1 if a mask holds a number for each type of defect, as in MVTec LOCO, so that all but 0 is a defect.

All cells are texts. Paths are relative to the folder of the table, or for a table in memory to the current folder.
"""

from __future__ import annotations

import csv
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files.writing import replacing
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFilesError
from aupimo_torchmetrics.evaluate.data.folders import NORMAL_WORDS, LabelledImage, as_name, is_file, missing_mask
from aupimo_torchmetrics.evaluate.data.texts import read_rows
from aupimo_torchmetrics.evaluate.maps.open import MapFiles, open_map_files
from aupimo_torchmetrics.evaluate.pairing import Pair, bad_image, pair_images, pair_maps

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PairedTable", "open_table", "write_table"]

COLUMNS = ("image", "mask", "map", "label", "defect", "category", "object", "split", "name", "score", "mask_classes")
"""Columns that are read."""
SEPARATOR = ";"
"""Stands between several masks of an image."""
TEST = "test"
"""The split, in any case, whose rows count."""
BY_MASK = "mask"
"""Label of an image of which only the mask says whether it has a defect."""
LABELS: dict[str, bool | None] = {
    **dict.fromkeys(("0", "0.0", "false", *NORMAL_WORDS), False),
    **dict.fromkeys(
        ("1", "1.0", "true", "anomalous", "anomaly", "abnormal", "defect", "defective", "bad", "ng", "ko"), True
    ),
    BY_MASK: None,
}
"""Whether an image has a defect, by its label in any case."""

TableLike: TypeAlias = "str | os.PathLike[str] | pd.DataFrame"
_Row: TypeAlias = dict[str, str]
"""Texts of all of `COLUMNS`, empty for one that is not there; and `place`, which row of which table it is."""


class PairedTable(NamedTuple):
    """Images of a table, each with its map."""

    pairs: list[Pair]
    """Images and maps that can be evaluated, as far as names and places of files say it."""
    bad_files: list[BadFile]
    """Rows that cannot be evaluated, and maps without an image."""
    maps: MapFiles
    """Maps that were given, or those that the table names."""
    images: list[LabelledImage]
    """All test images of the table, sorted by category and name."""
    notes: list[str]
    """Which rows and columns do not count, a sentence each."""


class _Table(NamedTuple):
    """What a table says."""

    title: str
    """Category of images without one."""
    folder: Path
    """Folder that paths are relative to."""
    columns: list[str]
    rows: list[tuple[str, list[str]]]
    """Place and cells of each row."""


def open_table(table: TableLike, maps: MapFiles | None = None) -> PairedTable:
    r"""Read a table of images, and find the map of each.

    Args:
        table: File of comma-separated values in UTF-8 with a header (`;`, `|` or tabs will do as well), or a pandas
            DataFrame, with the columns that `aupimo_torchmetrics.evaluate.data.table` lists.
        maps: Maps that are matched to the images by their paths. If None, the column `map` names the map of each image.

    Returns:
        Images with their maps. Bad files: rows that contradict themselves or each other, with their lines, and what
        `aupimo_torchmetrics.evaluate.pairing.pair_maps` finds.

    Raises:
        TypeError: If the table is neither a path nor a DataFrame.
        ValueError: If there is no such file.
        BadDataError: If the file is no table, a column is missing or there twice, or no row is of a test image.

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
    content = _read(table)
    used = [column for column in COLUMNS if column != "map" or maps is None]
    rows, bad_rows = _rows(content, used)
    rows, others, notes = _by_split(content.columns, rows)
    unused = ", ".join(column for column in content.columns if column and column not in used)
    notes += [f"columns of the table that are not used: {unused}"] if unused else []
    found = list(zip(_images(content, rows, needs_map=maps is None), rows, strict=True))
    found.sort(key=lambda each: (each[0].category, each[0].key, each[0].name))
    images = [image for image, _ in found]
    if maps is None:
        names = [row["map"] for _, row in found]
        maps = open_map_files([_file(name, content.folder) for name in names], names)
        pairs, bad_files = pair_images(maps, images, range(len(images)))
    else:
        pairs, bad_files = pair_maps(maps, images)
        of_others = _maps_of(others, maps, content.folder)
        bad_files = [bad_file for bad_file in bad_files if bad_file.path not in of_others]
    return PairedTable(pairs, [*bad_rows, *bad_files], maps, images, notes)


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
        image,mask,label,category,defect
        bottle/test/dirt/000.png,bottle/ground_truth/dirt/000_mask.png,1,bottle,dirt
        bottle/test/good/000.png,,0,bottle,good
        <BLANKLINE>

    """
    problems = [bad_image(image, image.problem) for image in images if image.problem and missing_mask(image) is None]
    if problems:
        raise BadFilesError(problems, "a table can only be written without them")
    path = Path(path)
    folder = path.parent.resolve()
    rows = [
        {
            "image": image.name if image.path is None else _cell(image.path, folder),
            "mask": SEPARATOR.join(_cell(mask, folder) for mask in image.masks),
            "label": BY_MASK if image.has_defect is None else str(int(image.has_defect)),
            "category": image.category,
            "defect": image.defect or "",
            "name": image.name,
            "mask_classes": str(int(image.has_mask_classes)),
        }
        for image in images
    ]
    columns = ["image", "mask", "label", "category", "defect"]
    columns += ["name"] if _names([row["image"] for row in rows], folder) != [row["name"] for row in rows] else []
    columns += ["mask_classes"] if any(image.has_mask_classes for image in images) else []
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except UnicodeEncodeError as error:
        raise BadDataError(f"Expected names in Unicode, but got {error.object!r}, which no table can hold.") from error


def _read(table: Any) -> _Table:
    """Take a file or a DataFrame apart; pandas is not imported for that."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.DataFrame):
        columns = [str(column).strip().lower() for column in table.columns]
        texts = table.astype(object).where(table.notna(), "").to_numpy()
        places = (f"table, row {index}" for index in table.index)
        rows = [(place, [str(cell).strip() for cell in cells]) for place, cells in zip(places, texts, strict=True)]
        return _Table("table", Path.cwd(), columns, rows)
    if not isinstance(table, str | os.PathLike):
        raise TypeError(f"Expected `table` to be a path or a pandas DataFrame, but got {type(table).__name__}.")
    path = Path(table)
    if not path.is_file():
        raise SettingError(f"Expected `table` to be a file, but there is no file {path}.")
    columns, lines = read_rows(path)
    rows = [(f"{path}, line {line}", cells) for line, cells in lines]
    return _Table(as_name(path.stem), path.parent.resolve(), columns, rows)


def _rows(table: _Table, used: Sequence[str]) -> tuple[list[_Row], list[BadFile]]:
    """Texts of each row in the columns that are used; and rows with more or fewer cells than columns, or no image."""
    columns, found = table.columns, f"its columns are {', '.join(table.columns) or 'none'}"
    for column in COLUMNS:
        if column in {"image", "mask", "map"} & {*used} - {*columns}:
            remedy = " Without a column map, give the maps as `maps`." if column == "map" else ""
            raise BadDataError(f"Expected `table` to have a column {column}, but {found}.{remedy}")
        if columns.count(column) > 1 or (column not in columns and f"{column}s" in columns):
            raise BadDataError(f"Expected `table` to have one column {column}, but {found}.")
    if not table.rows:
        raise BadDataError("Expected `table` to have a row for each image, but it has none.")
    rows, bad_rows = [], []
    for place, cells in table.rows:
        known = {column: cell for column, cell in zip(columns, cells, strict=False) if column in used}
        row = {**dict.fromkeys(COLUMNS, ""), **known, "place": place}
        if len(cells) != len(columns):
            bad_rows.append(BadFile(place, f"{len(cells)} cells, but {len(columns)} columns"))
        elif not (row["image"] or row["name"]):
            bad_rows.append(BadFile(place, "no image"))
        else:
            rows.append(row)
    if {"category", "object"} <= {*columns} and any(row["category"] != row["object"] for row in rows):
        raise BadDataError("Expected `table` to have a column category or object, but it has both, and they differ.")
    return rows, bad_rows


def _by_split(columns: Sequence[str], rows: list[_Row]) -> tuple[list[_Row], list[_Row], list[str]]:
    """Part rows of test images from others, with a note on these. Without a column `split` all are of test images."""
    of_test = [row for row in rows if "split" not in columns or row["split"].casefold() == TEST]
    others = [row for row in rows if "split" in columns and row["split"].casefold() != TEST]
    counts = Counter(row["split"] or "(none)" for row in others)
    found = ", ".join(f"{split} ({count})" for split, count in counts.items())
    if others and not of_test:
        raise BadDataError(f"Expected `table` to have rows with `{TEST}` in the column split, but found {found}.")
    note = f"rows of the table that are not of the split {TEST} do not count: {found}"
    return of_test, others, [note] if others else []


def _maps_of(rows: Sequence[_Row], maps: MapFiles, folder: Path) -> set[str]:
    """Names of the maps that belong to images of other splits."""
    names = _names([row["image"] for row in rows], folder)
    images = [LabelledImage(row["name"] or name, "", None, (), False) for row, name in zip(rows, names, strict=True)]
    return {pair.name for pair in pair_maps(maps, images)[0]}


def _images(table: _Table, rows: Sequence[_Row], *, needs_map: bool) -> Iterator[LabelledImage]:
    """Yield the image of each row, with what is wrong with the row."""
    derived = _names([row["image"] for row in rows], table.folder)
    names = [as_name(row["name"]) or name for row, name in zip(rows, derived, strict=True)]
    maps = [os.path.normpath(_file(row["map"], table.folder)) if row["map"] else None for row in rows]
    num_names, num_maps = Counter(names), Counter(maps)
    for row, name, map_file in zip(rows, names, maps, strict=True):
        file = _file(row["image"], table.folder)
        image = LabelledImage(
            name=name,
            category=as_name(row["category"] or row["object"]) or table.title,
            path=file if row["image"] and is_file(file) else None,
            masks=_masks(row["mask"], table.folder),
            has_defect=_has_defect(row),
            defect=as_name(row["defect"]) or None,
            has_mask_classes=LABELS.get(row["mask_classes"].lower()) is True,
            place=row["place"],
            score=_number(row["score"]),
        )
        problems = [*_contradictions(row, image, has_score="score" in table.columns)]
        problems += ["an image that another row names, too"] if num_names[name] > 1 else []
        if needs_map and map_file is None:
            problems.append("no map")
        elif map_file is not None:
            problems += [f"its map {map_file} is missing"] if not is_file(Path(map_file)) else []
            problems += ["a map that another row names, too"] if num_maps[map_file] > 1 else []
            problems += ["its map and its mask are one file"] if map_file in map(os.path.normpath, image.masks) else []
        yield image._replace(problem="; ".join(problems) or None)


def _has_defect(row: _Row) -> bool | None:
    """Whether an image has a defect, by its label, or else by its type of defect; None if only the mask says it."""
    if row["label"]:
        return LABELS.get(row["label"].lower())
    if row["defect"]:
        return LABELS.get(row["defect"].partition("/")[0].lower()) is not False
    return None if row["mask"] else False


def _contradictions(row: _Row, image: LabelledImage, *, has_score: bool) -> Iterator[str]:
    """Yield what is wrong with the image of a row by itself."""
    if row["label"] and row["label"].lower() not in LABELS:
        yield f"the label {row['label']!r} is neither 0 (normal) nor 1 (with a defect)"
    elif image.has_defect is not False and not image.masks:
        kind = "label" if row["label"] else "defect"
        says = "that the mask tells" if image.has_defect is None else "that it has a defect"
        yield f"the {kind} {row[kind]} says {says}, but there is no mask"
    if has_score and image.score is None:
        yield f"the score {row['score']!r} is no number" if row["score"] else "no score"
    if row["mask_classes"] and LABELS.get(row["mask_classes"].lower()) is None:
        yield f"mask_classes is {row['mask_classes']!r}, neither 0 nor 1"
    if image.category in {".", ".."} or not {"/", "\\"}.isdisjoint(image.category):
        yield f"the category {image.category!r} cannot be the name of a folder"
    if missing := missing_mask(image):
        yield missing


def _number(text: str) -> float | None:
    """Number that a text says; None if it says none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _masks(cell: str, folder: Path) -> tuple[Path, ...]:
    """Files of masks that a cell names."""
    parts = [cell] if is_file(_file(cell, folder)) else cell.split(SEPARATOR)
    return tuple(_file(part.strip(), folder) for part in parts if part.strip())


def _file(cell: str, folder: Path) -> Path:
    """File that a cell names, which may begin with `..` and be written by Windows."""
    cell = cell.replace("\\", "/")
    while cell.startswith("../"):
        cell, folder = cell[3:], folder.parent
    return folder / cell


def _names(cells: Sequence[str], folder: Path) -> list[str]:
    """Paths of images relative to the folder, or if one lies elsewhere to the folder they all lie in."""
    files = [os.path.normpath(folder / cell.replace("\\", "/")) if cell else "" for cell in cells]
    base = str(folder)
    parents = {os.path.dirname(file) for file in files if file}  # noqa: PTH120  texts, many of them
    if any(os.path.commonpath([base, parent]) != base for parent in parents):
        base = os.path.commonpath(parents)
    return [as_name(Path(file).relative_to(base).as_posix()) if file else "" for file in files]


def _cell(path: Path, folder: Path) -> str:
    """Path relative to a folder, or as it is if they have no folder in common."""
    try:
        has_common = len(Path(os.path.commonpath([path, folder])).parts) > 1
    except ValueError:  # another drive of Windows
        has_common = False
    return Path(os.path.relpath(path, folder)).as_posix() if has_common else path.as_posix()
