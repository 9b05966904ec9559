"""Folders: which files are in them, and whether links lead out."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

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

    """
    found = []
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(str(folder), ())]
    while waiting:
        current, above = waiting.pop()
        if follow_links:
            status = os.stat(current)  # noqa: PTH116  a text is faster than a path, and there are many
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                raise BadDataError(f"Expected {folder} to end somewhere, but {current} is a link to a folder above it.")
            above = (*above, identity)
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    if entry.is_symlink() and not follow_links:
                        raise BadDataError(
                            f"Expected {folder} to hold files and folders, but {entry.path} is a link to a folder. "
                            "`follow_links=True` follows it."
                        )
                    waiting.append((entry.path, above))
                elif _is_file(entry, suffixes):
                    found.append(entry.path)
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]  # noqa: PTH206


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str], suffixes: Collection[str]) -> bool:
    """Whether an entry, which is no folder, is a file with one of the suffixes; raise if it only looks like one."""
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
    has_suffix = suffix in suffixes
    if not has_suffix and (suffix or not entry.is_symlink()):  # a link without suffix may have led to a folder
        return False
    try:
        is_file = entry.is_file()
    except OSError:
        is_file = False
    if not is_file:
        raise BadDataError(f"Expected {entry.path} to be a file, but it is a link to nothing, or a device.")
    return has_suffix


def check_inside(root: Path, paths: Iterable[Path]) -> None:
    """Raise a BadDataError if one of the files lies outside of the root."""
    inside = root.resolve()
    folders_inside: dict[Path, bool] = {}
    for path in paths:
        folder = path.parent
        if folder not in folders_inside:
            folders_inside[folder] = folder.resolve().is_relative_to(inside)
        if not folders_inside[folder] or (path.is_symlink() and not path.resolve().is_relative_to(inside)):
            raise BadDataError(
                f"Expected all files to lie in {root}, but {path} is reached by a link that leads out. "
                "`follow_links=True` follows it."
            )
