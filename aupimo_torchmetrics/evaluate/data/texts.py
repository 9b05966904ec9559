"""Texts that come with a data set: read as they are, or refused by name."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

from aupimo_torchmetrics._errors import BadDataError

__all__ = ["read_rows", "read_text"]

DELIMITERS = (",", ";", "\t", "|")
"""What may stand between cells: the first of these by which the header has a column `image`."""


def read_text(path: Path) -> str:
    """Read a text that comes with a data set; raise a BadDataError if it is none."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadDataError(f"Expected {path} to be a text in UTF-8, but it is one in UTF-16. Please save it in UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadDataError(
            f"Expected {path} to be a text in UTF-8, but could not read it: {error}. Please save it in UTF-8."
        ) from error
    if "\0" in text:
        raise BadDataError(
            f"Expected {path} to be a text in UTF-8, but it is none, or in UTF-16. Please save it in UTF-8."
        )
    return text


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a table of comma-separated values; `;`, `|` and tabs will do as well.

    (The reader is Python's: that of pandas does not say at which line a row begins, fills short rows, and takes a first
    column without a name for an index.)

    Args:
        path: File of the table.

    Returns:
        The names of the columns in lower case, and the texts of each row that is not empty with the line it begins at.
        Rows may be longer or shorter than the header.

    Raises:
        BadDataError: If the file is no such table.
        OSError: If it cannot be read.

    """
    text = read_text(path)
    if text.lstrip().startswith(("{", "[")):
        raise BadDataError(
            f"Expected {path} to be a table in CSV, with a header such as `image,mask,map` and a line for each image, "
            "but it is JSON."
        )
    header = next((line for line in text.splitlines() if line.strip()), "")
    fitting = (each for each in DELIMITERS if "image" in {cell.strip(' "').lower() for cell in header.split(each)})
    delimiter = next(fitting, DELIMITERS[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows, line = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadDataError(
            f"Expected {path} to be a table in CSV, but could not read line {reader.line_num}: {error}."
        ) from error
    return ([cell.lower() for cell in rows[0][1]], rows[1:]) if rows else ([], [])
