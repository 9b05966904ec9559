"""Files of `torch.save`."""

from __future__ import annotations

import os
import pickletools
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.torch_version import TorchVersion

from aupimo_torchmetrics._errors import BadDataError

MIN_TORCH = TorchVersion("2.6")
"""First version of torch whose `weights_only=True` runs no code of a file, whatever its format (CVE-2025-32434)."""
MAX_TEXT = 1024
"""Characters of the longest text in a file of tensors."""
_ZIP_START = b"PK\3\4"


def load_tensors(path: str | os.PathLike[str], *, mmap: bool = False) -> Any:
    """Read what `torch.save` wrote to a file: tensors, texts, numbers, and dicts and lists of these; no code is run.

    Args:
        path: File to read.
        mmap: Whether tensors stay on disk until they are asked for.

    Returns:
        What was written, with its tensors on the CPU.

    Raises:
        ImportError: If the installed torch is older than 2.6, which does not keep that promise.
        BadDataError: If there is something else in the file, if the file is broken, or if it is made to fill the memory
            or to keep torch busy for hours.
        OSError: If the file cannot be opened.

    """
    _check_torch()
    with Path(path).open("rb") as file:
        try:
            _check_archive(file)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except BadDataError:
            raise
        except Exception as error:  # not its text, in which torch advises to trust the file
            raise BadDataError("broken, or not only tensors, texts, numbers, and dicts and lists of these") from error


def _check_torch() -> None:
    """Raise if the installed torch may run code of a file in spite of `weights_only=True`."""
    if TorchVersion(torch.__version__) < MIN_TORCH:
        raise ImportError(
            f"Reading a `.pt` file expects torch {MIN_TORCH} or later, which runs no code from a file, but torch "
            f'{torch.__version__} is installed. Please upgrade with `pip install "torch>={MIN_TORCH}"`.'
        )


def _check_archive(file: BinaryIO) -> None:
    """Raise if torch would take a file for something else than a zip archive, or if it can fill the memory."""
    # torch goes by these four bytes, zipfile by the end of a file: a file can be one thing to torch, another to zipfile
    if file.read(len(_ZIP_START)) != _ZIP_START:
        raise BadDataError("not a file of `torch.save` of torch 1.6 or later")
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise BadDataError("compressed, which `torch.save` never does")
        for name in archive.namelist():
            if name.lower().endswith("data.pkl"):  # torch looks for any case
                _check_pickle(archive.read(name))


def _check_pickle(pickled: bytes) -> None:
    """Raise if a text is longer than paths are, or if a list or another container is used twice.

    torch quotes what it refuses, and searches the quotation in a time that grows with the square of the longest word. A
    text of a million characters takes hours. So do a hundred lists, each of which holds the one before it twice.
    """
    plain: set[object] = set()
    previous = ""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and str(argument).startswith("numpy"):
            raise BadDataError("a NumPy array. Please save a tensor, or the array as `.npy`")
        if isinstance(argument, str) and len(argument) > MAX_TEXT:
            raise BadDataError(f"a text of {len(argument):,} characters, at most {MAX_TEXT:,}")
        if opcode.name in {"BINPUT", "LONG_BINPUT"}:  # gives a number to the object before
            (plain.add if previous in {"BINUNICODE", "GLOBAL"} else plain.discard)(argument)
        elif opcode.name in {"BINGET", "LONG_BINGET"} and argument not in plain:  # the object of a number, once more
            raise BadDataError("one object twice")
        previous = opcode.name
