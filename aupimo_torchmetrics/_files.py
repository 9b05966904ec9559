"""Files that other programs may read at any time, whole or not there; and files of other people, which may mislead."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_ZIP_START = b"PK\3\4"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a file to write, which takes the place of `path` when all went well, and is removed if not."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_tensors(path: str | os.PathLike[str], *, mmap: bool = False) -> Any:
    """Read what `torch.save` wrote to a file: tensors, texts, numbers, and dicts and lists of these; no code is run.

    Args:
        path: File to read.
        mmap: Whether tensors stay on disk until they are asked for.

    Raises:
        ValueError: If `torch.load` would take the file for something else than tensors in a zip archive (in its older
            formats and in TorchScript, torch before 2.6 may run code), or if the archive is compressed, which
            `torch.save` does not do, so that a small file may fill the memory.
        Exception: Whatever `torch.load` raises of a file that is broken.

    """
    with Path(path).open("rb") as file:
        if file.read(len(_ZIP_START)) != _ZIP_START:
            raise ValueError("not a file of `torch.save` of torch 1.6 or later")
        with zipfile.ZipFile(file) as archive:
            if any(Path(name).name == "constants.pkl" for name in archive.namelist()):
                raise ValueError("a TorchScript model, not tensors")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed, which `torch.save` never does")
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


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
