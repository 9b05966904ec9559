"""Folders: which files are in them, and whether links lead out."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import NoReturn

from aupimo_torchmetrics._errors import BadDataError


def find_files(folder: Path, suffixes: Collection[str], *, follow_links: bool = False) -> list[Path]:
    """List the files with one of the suffixes in a folder and in the folders in it, sorted.

    Files and folders whose names begin with a dot are no data: operating systems and editors leave them behind.

    Args:
        folder: Folder to search, which may be a link itself.
        suffixes: Suffixes in lower case; files have them in any case.
        follow_links: Whether to go through links to folders.

    Raises:
        BadDataError: If there is a link to a folder that is not to be followed, a link to a folder that holds it, a
            link to nothing, or something else than a file by such a name.
        OSError: If a folder cannot be listed.

    """
    found: list[str] = []
    for current, folders, names in os.walk(folder, onerror=_fail, followlinks=follow_links):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            _check_folder(folder, os.path.join(current, name), follow_links)  # noqa: PTH118  texts are faster
        for name in names:
            path, suffix = os.path.join(current, name), os.path.splitext(name)[1].lower()  # noqa: PTH118, PTH122
            if name.startswith(".") or suffix not in {"", *suffixes}:
                continue
            if not os.path.isfile(path):  # noqa: PTH113  a link without suffix may have led to a folder
                raise BadDataError(f"Expected {path} to be a file, but it is a link to nothing, or a device.")
            if suffix:
                found.append(path)
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]  # noqa: PTH206


def _fail(error: OSError) -> NoReturn:
    """Raise what `os.walk` would pass over."""
    raise error


def _check_folder(folder: Path, path: str, follow_links: bool) -> None:
    """Raise if a path in a folder is a link that is not to be followed, or that leads to a folder on the way to it."""
    if not os.path.islink(path):  # noqa: PTH114
        return
    if not follow_links:
        raise BadDataError(f"Expected no links, but {path} is a link to a folder. `follow_links=True` follows it.")
    if any(above.samefile(path) for above in Path(path).parents if above.is_relative_to(folder)):
        raise BadDataError(f"Expected {folder} to end somewhere, but {path} is a link to a folder above it.")


def check_inside(root: Path, paths: Iterable[Path]) -> None:
    """Raise a BadDataError if one of the files lies outside of the root."""
    inside, resolved = root.resolve(), cache(Path.resolve)
    for path in paths:
        if not (path.resolve() if path.is_symlink() else resolved(path.parent)).is_relative_to(inside):
            raise BadDataError(f"{path} is reached by a link that leads out of {root}. `follow_links=True` follows it.")
