"""Tables of images with their masks and maps, by which any data set can be evaluated.

A table has a row for each image and these columns, in any order; others are ignored:

- `image` names the image. The file need not be there.
- `mask` is the file of its mask, or several with `;` between them, of which the union counts; empty if it is normal.
- `map` is the file of its map; needed unless maps are given by themselves.
- `label` is 0 (normal), 1 (with a defect), or `mask` if its mask says it.
- `defect` is the type of the defect, or `good` and its like; without `label` it says whether the image has a defect.
  If neither is there, the mask says it.
- `category` is a text. Without it, it is the name of the table.
- `name` names the image where its path should not.
- `score` is the score of the whole image, for metrics of images; without it, it is the highest score of the map.
- `mask_classes` is 1 if a mask holds a number for each type of defect, as in MVTec LOCO, so that all but 0 is a defect.

Paths are relative to the folder of the table, or for a table in memory to the current folder.
"""

from __future__ import annotations

import csv
import io
import math
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files.writing import replacing
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFilesError
from aupimo_torchmetrics.evaluate.data.folders import NORMAL_FOLDERS, LabelledImage, as_name, is_file, read_text
from aupimo_torchmetrics.evaluate.maps.open import MapFiles, open_map_files
from aupimo_torchmetrics.evaluate.pairing import Pair, bad_image, pair_images, pair_maps

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PairedTable", "open_table", "write_table"]

COLUMNS = ("image", "mask", "map", "label", "category", "defect", "name", "score", "mask_classes")
"""Columns that are read."""
DELIMITERS = (",", ";", "\t", "|")
"""What may stand between cells: the first of these by which the header has a column `image`."""
SEPARATOR = ";"
"""Stands between several masks of an image."""
LABELS = {
    **dict.fromkeys(("0", "0.0", "false", "normal", "good", "ok"), False),
    **dict.fromkeys(
        ("1", "1.0", "true", "anomalous", "anomaly", "abnormal", "defect", "defective", "bad", "ng", "ko"), True
    ),
}
"""Whether an image has a defect, by its label in any case."""
BY_MASK = "mask"
"""Label of an image of which its mask says whether it has a defect, whatever its column `defect` says."""

TableLike: TypeAlias = "str | os.PathLike[str] | pd.DataFrame"


class PairedTable(NamedTuple):
    """Images of a table, each with its map."""

    pairs: list[Pair]
    """Images and maps that can be evaluated, as far as names and places of files say it."""
    bad_files: list[BadFile]
    """Rows that cannot be evaluated, and maps without an image."""
    maps: MapFiles
    """Maps that were given, or those that the table names."""
    images: list[LabelledImage]
    """All images of the table, sorted by category and name."""


class _Row(NamedTuple):
    """A row of a table."""

    place: str
    """Which row of which table it is, for messages."""
    cells: dict[str, str]
    """Texts of the columns that are known."""


class _Table(NamedTuple):
    """What a table says."""

    title: str
    """Category of images without one."""
    folder: Path
    """Folder that paths are relative to."""
    columns: list[str]
    rows: list[_Row]
    bad_files: list[BadFile]
    """Rows that could not be taken apart."""


def open_table(table: TableLike, maps: MapFiles | None = None) -> PairedTable:
    r"""Read a table of images, and find the map of each.

    Args:
        table: File of comma-separated values in UTF-8 with a header (`;`, `|` or tabs will do as well), or a pandas
            DataFrame. Its columns are `image`, `mask`, `map`, `label`, `category`, `defect`, `name`, `score` and
            `mask_classes`.
        maps: Maps that are matched to the images by their paths. If None, the column `map` names the map of each image.

    Returns:
        Images with their maps. Bad files: rows that contradict themselves or each other, with their lines, and what
        `aupimo_torchmetrics.evaluate.pairing.pair_maps` finds.

    Raises:
        TypeError: If the table is neither a path nor a DataFrame.
        ValueError: If there is no such file.
        BadDataError: If the file is no table, a column is missing, or there is no row.

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
    content = _read_frame(table) if _is_frame(table) else _read_file(table)
    _check_columns(content, needs_map=maps is None)
    if maps is not None:  # they count, not those of the column
        content = content._replace(rows=[row._replace(cells={**row.cells, "map": ""}) for row in content.rows])
    rows = zip(_images(content, needs_map=maps is None), content.rows, strict=True)
    found = [(image, row) for image, row in rows if image.name]
    found.sort(key=lambda each: (each[0].category, each[0].key, each[0].name))
    images = [image for image, _ in found]
    unnamed = [BadFile(row.place, "no image") for row in content.rows if not (row.cells["image"] or row.cells["name"])]
    if maps is None:
        names = [row.cells["map"] for _, row in found]
        maps = open_map_files([_file(name, content.folder) for name in names], names)
        pairs, bad_files = pair_images(maps, images, range(len(images)))
    else:
        pairs, bad_files = pair_maps(maps, images)
    return PairedTable(pairs, [*content.bad_files, *unnamed, *bad_files], maps, images)


def write_table(images: Sequence[LabelledImage], path: str | os.PathLike[str]) -> None:
    """Write the table that a data set amounts to, for `open_table`.

    Args:
        images: Test images, as from `aupimo_torchmetrics.evaluate.find_test_images`.
        path: File to write, with paths relative to its folder as far as possible. The folder is made if need be.

    Raises:
        OSError: If the file cannot be written.
        BadDataError: If a name is no Unicode.
        BadFilesError: If an image has a problem, which a table cannot say.

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
    problems = [bad_image(image, image.problem) for image in images if image.problem]
    if problems:
        raise BadFilesError(problems, "a table can only be written without them")
    path = Path(path)
    folder = path.parent.resolve()
    rows = []
    for image in images:
        label = (BY_MASK if image.defect else "") if image.has_defect is None else str(int(image.has_defect))
        masks = SEPARATOR.join(_cell(mask, folder) for mask in image.masks)
        file = image.name if image.path is None else _cell(image.path, folder)
        rows.append([file, masks, label, image.category, image.defect or ""])
    columns = ["image", "mask", "label", "category", "defect"]
    if _names([row[0] for row in rows], folder) != [image.name for image in images]:
        columns.append("name")
        rows = [[*row, image.name] for row, image in zip(rows, images, strict=True)]
    if any(image.has_mask_classes for image in images):
        columns.append("mask_classes")
        rows = [[*row, str(int(image.has_mask_classes))] for row, image in zip(rows, images, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file_of_table:
            csv.writer(file_of_table, lineterminator="\n").writerows([columns, *rows])
    except UnicodeEncodeError as error:
        raise BadDataError(f"Expected names in Unicode, but got {error.object!r}, which no table can hold.") from error


def _is_frame(table: Any) -> bool:
    """Whether a table is a pandas DataFrame; pandas is not imported for that."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(table, pandas.DataFrame)


def _read_frame(frame: Any) -> _Table:
    """Take a DataFrame apart."""
    columns = [str(column).strip().lower() for column in frame.columns]
    missing = frame.isna().to_numpy()
    rows = []
    for number, (index, values) in enumerate(zip(frame.index, frame.itertuples(index=False, name=None), strict=True)):
        texts = ["" if is_missing else str(value) for value, is_missing in zip(values, missing[number], strict=True)]
        rows.append(_Row(f"table, row {index}", _known_cells(columns, texts)))
    return _Table("table", Path.cwd(), columns, rows, [])


def _read_file(table: Any) -> _Table:
    """Take a file of comma-separated values apart."""
    if not isinstance(table, str | os.PathLike):
        raise TypeError(f"Expected `table` to be a path or a pandas DataFrame, but got {type(table).__name__}.")
    path = Path(table)
    if not path.is_file():
        raise SettingError(f"Expected `table` to be a file, but there is no file {path}.")
    text = read_text(path)
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    columns: list[str] = []
    rows, bad_files = [], []
    try:
        for line, cells in _numbered(reader):
            if not columns:
                columns = [cell.strip().lower() for cell in cells]
            elif len(cells) != len(columns):
                bad_files.append(BadFile(f"{path}, line {line}", f"{len(cells)} cells, but {len(columns)} columns"))
            else:
                rows.append(_Row(f"{path}, line {line}", _known_cells(columns, cells)))
    except csv.Error as error:
        raise BadDataError(
            f"Expected {path} to be a table in CSV, but could not read line {reader.line_num}: {error}."
        ) from error
    return _Table(as_name(path.stem), path.parent.resolve(), columns, rows, bad_files)


def _delimiter(text: str) -> str:
    """What stands between the cells of a table."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    for delimiter in DELIMITERS:
        if "image" in {cell.strip(' "').lower() for cell in header.split(delimiter)}:
            return delimiter
    return DELIMITERS[0]


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not empty, and the line it begins at."""
    line = 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1


def _known_cells(columns: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    """Texts of the columns that are known; empty for one that is not there."""
    return {**dict.fromkeys(COLUMNS, ""), **dict(zip(columns, (text.strip() for text in texts), strict=True))}


def _check_columns(table: _Table, *, needs_map: bool) -> None:
    """Raise unless a table has the columns that are needed, each once, and rows."""
    needed = ("image", "mask", "map") if needs_map else ("image", "mask")
    found = ", ".join(table.columns) or "none"
    missing = [column for column in needed if column not in table.columns]
    if missing:
        remedy = " Without a column map, give the maps as `maps`." if missing == ["map"] else ""
        raise BadDataError(f"Expected `table` to have a column {missing[0]}, but its columns are {found}.{remedy}")
    twice = sorted({column for column in table.columns if column in COLUMNS and table.columns.count(column) > 1})
    if twice:
        raise BadDataError(f"Expected `table` to have one column {twice[0]}, but its columns are {found}.")
    plural = [column for column in COLUMNS if column not in table.columns and f"{column}s" in table.columns]
    if plural:
        raise BadDataError(f"Expected `table` to have columns {', '.join(COLUMNS)}, but got {plural[0]}s.")
    if not table.rows and not table.bad_files:
        raise BadDataError("Expected `table` to have a row for each image, but it has none.")


def _images(table: _Table, *, needs_map: bool) -> Iterator[LabelledImage]:
    """Yield the image of each row, with what is wrong with the row; without a name if it names none."""
    derived = _names([row.cells["image"] for row in table.rows], table.folder)
    names = [as_name(row.cells["name"]) or name for row, name in zip(table.rows, derived, strict=True)]
    maps = [os.path.normpath(_file(row.cells["map"], table.folder)) for row in table.rows]
    same_names, same_maps = _places(table, names), _places(table, maps)
    for row, name, map_file in zip(table.rows, names, maps, strict=True):
        cells = row.cells
        masks = _masks(cells["mask"], table.folder)
        problems = [*_contradictions(row, table.folder, masks, table.columns)]
        problems += _named_twice("an image", row, same_names[name])
        if needs_map and not cells["map"]:
            problems.append("no map")
        elif needs_map:
            problems += _named_twice("a map", row, same_maps[map_file])
        file = _file(cells["image"], table.folder)
        yield LabelledImage(
            name=name,
            category=as_name(cells["category"]) or table.title,
            path=file if cells["image"] and is_file(file) else None,
            masks=masks,
            has_defect=_has_defect(cells, masks),
            defect=as_name(cells["defect"]) or None,
            has_mask_classes=LABELS.get(cells["mask_classes"].lower(), False),
            problem="; ".join(problems) or None,
            place=row.place,
            score=_number(cells["score"]),
        )


def _contradictions(row: _Row, folder: Path, masks: Sequence[Path], columns: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with a row by itself."""
    label, category, map_file = row.cells["label"], row.cells["category"], row.cells["map"]
    if label and label.lower() not in {*LABELS, BY_MASK}:
        yield f"the label {label!r} is neither 0 (normal) nor 1 (with a defect)"
    elif label and LABELS.get(label.lower()) and not masks:
        yield f"the label {label} says that it has a defect, but there is no mask"
    elif not label and not masks and _has_defect(row.cells, masks):
        defect, normal = row.cells["defect"], ", ".join(NORMAL_FOLDERS)
        yield f"the defect {defect!r} is none of {normal}, but there is no mask; a label 0 says that it is normal"
    if "score" in columns and _number(row.cells["score"]) is None:
        yield f"the score {row.cells['score']!r} is no number" if row.cells["score"] else "no score"
    classes = row.cells["mask_classes"]
    if classes and classes.lower() not in LABELS:
        yield f"mask_classes is {classes!r}, neither 0 nor 1"
    if category in {".", ".."} or "/" in category or "\\" in category:
        yield f"the category {category!r} cannot be the name of a folder"
    missing = next((mask for mask in masks if not is_file(mask)), None)
    if missing is not None:
        yield f"its mask {missing} is missing"
    if map_file and os.path.normpath(_file(map_file, folder)) in map(os.path.normpath, masks):
        yield "its map and its mask are one file"
    if map_file and not is_file(_file(map_file, folder)):
        yield f"its map {_file(map_file, folder)} is missing"


def _has_defect(cells: Mapping[str, str], masks: Sequence[Path]) -> bool | None:
    """Whether a row says that its image has a defect: by its label, or else by its defect; None if only the mask does.

    Folders that `normal_folder` names stand in the column `defect`, too, so that a label is asked first.
    """
    label = cells["label"].lower()
    if label == BY_MASK or not (label or cells["defect"]):
        return None if masks else False
    if label:
        return LABELS.get(label)
    words = {word.casefold() for word in as_name(cells["defect"]).split("/")}
    return not any(word in NORMAL_FOLDERS or LABELS.get(word) is False for word in words)


def _number(text: str) -> float | None:
    """Number that a text says; None if it says none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _places(table: _Table, texts: Iterable[str]) -> dict[str, list[str]]:
    """Places of the rows by a text of theirs."""
    places: dict[str, list[str]] = {}
    for row, text in zip(table.rows, texts, strict=True):
        places.setdefault(text, []).append(row.place)
    return places


def _named_twice(kind: str, row: _Row, places: Sequence[str]) -> list[str]:
    """Say that another row names the same file, if there is one."""
    if len(places) == 1:
        return []
    return [f"{kind} that {places[1] if places[0] == row.place else places[0]} names, too"]


def _masks(cell: str, folder: Path) -> tuple[Path, ...]:
    """Files of masks that a cell names."""
    if not cell or is_file(_file(cell, folder)):
        return (_file(cell, folder),) if cell else ()
    return tuple(_file(part.strip(), folder) for part in cell.split(SEPARATOR) if part.strip())


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
