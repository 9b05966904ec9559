"""The distrust of files that other people wrote: what may run code or fill the memory is refused."""

from __future__ import annotations

import os
import pickletools
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

_ZIP_START = b"PK\3\4"

_MAX_TEXT = 1024
"""Characters of the longest text in a file of tensors."""


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
