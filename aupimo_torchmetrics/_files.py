"""Files that other programs may read at any time, whole or not there, and files in folders."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class BadDataError(ValueError):
    """Files or data that cannot be used."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a file to write. It replaces the file `path` if all goes well, and is removed if not."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def find_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List the files with one of the suffixes in a folder and in the folders in it, sorted.

    Raises:
        ValueError: If there is a link to a folder, which is not followed, or something else than a file by such a name.

    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            if path.is_symlink():
                raise ValueError(f"Expected {folder} to hold files and folders, but {path} is a link to a folder.")
        elif path.suffix.lower() in suffixes:
            if not path.is_file():
                raise ValueError(f"Expected {path} to be a file, but it is a link to nothing, or a device.")
            found.append(path)
    return found


def check_inside(root: Path, paths: Iterable[Path]) -> None:
    """Raise a ValueError if one of the files lies outside of the root."""
    inside = root.resolve()
    for path in paths:
        if not path.resolve().is_relative_to(inside):
            raise ValueError(
                f"Expected all files to lie in {root}, but {path} is reached by a link that leads out. "
                "Give the folder that the link leads to, or copy the files."
            )
