"""Files and folders: paths that must be there, and files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aupimo_torchmetrics._errors import SettingError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a file to write. It is renamed to `path` when all went well, and removed if not."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"Expected a file to write, but {path} is a folder.")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        # Names of files that are no valid text have characters that UTF-8 cannot write.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def existing_folder(name: str, path: str | os.PathLike[str]) -> Path:
    """Return the parameter `name` as a path; raise a ValueError unless it is a folder."""
    path = Path(path)
    if not path.is_dir():
        raise SettingError(f"Expected `{name}` to be a folder, but there is no folder {path}.")
    return path
