"""Files that other programs may read at any time, whole or not there; and files of other people, which may mislead."""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

_ZIP_START = b"PK\3\4"
_MAX_TEXT = 1024
"""Characters of the longest text in a file of tensors."""


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
            formats and in TorchScript, torch before 2.6 may run code), or if the archive is made to fill the memory or
            to take hours.
        Exception: Whatever `torch.load` raises of a file that is broken.

    """
    with Path(path).open("rb") as file:
        try:
            _check_archive(file)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except OSError as error:  # the file is there, but not all of the places that are named in it
            raise ValueError(str(error)) from error


def _check_archive(file: BinaryIO) -> None:
    """Raise unless a file is a zip archive of tensors."""
    if file.read(len(_ZIP_START)) != _ZIP_START:
        raise ValueError("not a file of `torch.save` of torch 1.6 or later")
    with zipfile.ZipFile(file) as archive:
        if any(name.lower().endswith("constants.pkl") for name in archive.namelist()):  # torch asks for any case
            raise ValueError("a TorchScript model, not tensors")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed, which `torch.save` never does")
        for name in archive.namelist():
            if name.lower().endswith("data.pkl"):
                _check_pickle(archive.read(name))


def _check_pickle(pickled: bytes) -> None:
    """Raise if a text is longer than paths are, or if something else than texts and types is referred to.

    What `torch.load` refuses it quotes in full, however often a list stands in a list, and searches the quotation in a
    time that grows with the square of the longest word.
    """
    referable: set[object] = set()
    previous = ""
    for opcode, argument, _ in pickletools.genops(pickled):
        if isinstance(argument, str) and len(argument) > _MAX_TEXT:
            raise ValueError(f"a text of {len(argument):,} characters, at most {_MAX_TEXT:,}")
        if opcode.name in {"BINPUT", "LONG_BINPUT"}:
            (referable.add if previous in {"BINUNICODE", "GLOBAL"} else referable.discard)(argument)
        elif opcode.name in {"BINGET", "LONG_BINGET"} and argument not in referable:
            raise ValueError("one object in two places")
        previous = opcode.name


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
