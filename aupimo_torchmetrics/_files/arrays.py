"""Files of NumPy and of `torch.save`."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.torch_version import TorchVersion

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.limits import refusing

MIN_TORCH = TorchVersion("2.6")
"""First version of torch whose `weights_only=True` runs no code of a file, whatever its format (CVE-2025-32434)."""


def open_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Map a NumPy file into memory: an array without objects in it, not an archive of several."""
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))


class ArchivedArray(NamedTuple):
    """An array in a NumPy archive, of which only the head was read."""

    archive: zipfile.ZipFile
    """Open as long as one of its arrays is kept."""
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self) -> NDArray[Any]:
        """Read the whole array: no part of an archive can be read alone."""
        if self.dtype.hasobject:  # not the text of NumPy, which names the way to run code
            raise BadDataError(f"{self.name} holds objects of Python, of dtype {self.dtype}")
        with self.archive.open(self.name) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


def open_npz(path: str | os.PathLike[str]) -> dict[str, ArchivedArray]:
    """Open a NumPy archive: arrays by name, of which none is read yet."""
    archive, arrays = zipfile.ZipFile(path), {}
    for name in archive.namelist():
        with archive.open(name) as stream:
            is_first = np.lib.format.read_magic(stream) == (1, 0)
            read_head = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
            shape, _, dtype = read_head(stream)
        arrays[name.removesuffix(".npy")] = ArchivedArray(archive, name, shape, dtype)
    return arrays


def load_tensors(path: str | os.PathLike[str], *, mmap: bool = False) -> Any:
    """Read what `torch.save` wrote to a file: tensors, texts, numbers, and dicts and lists of these; no code is run.

    Args:
        path: File to read.
        mmap: Whether tensors stay on disk until they are asked for.

    Returns:
        What was written, with its tensors on the CPU.

    Raises:
        ImportError: If the installed torch is older than 2.6, which does not keep that promise.
        BadDataError: If there is something else in the file, or if the file is broken.
        OSError: If the file cannot be opened.

    """
    if TorchVersion(torch.__version__) < MIN_TORCH:
        raise ImportError(
            f"Reading a `.pt` file expects torch {MIN_TORCH} or later, which runs no code from a file, but torch "
            f'{torch.__version__} is installed. Please upgrade with `pip install "torch>={MIN_TORCH}"`.'
        )
    with Path(path).open("rb"):  # raises an `OSError` that names the path; torch raises errors of all kinds
        pass
    try:
        with refusing():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except BadDataError as error:  # not its text, in which torch advises to trust the file
        found = re.search(r"GLOBAL ([\w.]{1,80})", str(error.__cause__))
        what = f"it holds `{found[1]}`, not only" if found else "broken, or not only"
        raise BadDataError(f"{what} tensors, texts, numbers, and dicts and lists of these") from error
