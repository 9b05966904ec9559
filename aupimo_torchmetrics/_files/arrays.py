"""Files of NumPy."""

from __future__ import annotations

import math
import os
import zipfile
from types import EllipsisType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.limits import check_size

MAX_TEXTS = 2**27
"""Bytes of all texts together in a NumPy archive."""


def open_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Map a NumPy file of any size into memory: an array without objects in it, not an archive of several."""
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))


def read_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Map a NumPy file of one map into memory, see `open_npy`."""
    array = open_npy(path)
    check_size(array.shape)
    return array


class ArchivedArray:
    """An array in a NumPy archive, of which only the head was read.

    Attributes:
        shape: Length of its axes.
        dtype: Type of its numbers or texts.

    """

    def __init__(self, path: str | os.PathLike[str], member: str) -> None:
        self._path, self._member = path, member
        self._stream: IO[bytes] | None = None
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            self.shape, self._is_fortran, self.dtype = _npy_head(stream)
            self._start = stream.tell()

    def __getitem__(self, index: int | EllipsisType) -> NDArray[Any]:
        """Read one entry of the first axis, or all of it for `...`; of what is compressed in order, fastest."""
        if self.dtype.kind not in "fiubUS":
            raise BadDataError(f"`{self._member.removesuffix('.npy')}` of dtype {self.dtype}")
        if self.dtype.kind in "US":
            check_size((*self.shape, self.dtype.itemsize), MAX_TEXTS, "bytes")
        if isinstance(index, int):
            return self._entry(index)
        check_size(self.shape)
        with zipfile.ZipFile(self._path) as archive, archive.open(self._member) as stream:
            values = self._values(stream, 0, self.shape)
        return values.reshape(self.shape, order="F" if self._is_fortran else "C")

    def _entry(self, index: int) -> NDArray[Any]:
        """Read one entry of the first axis. The archive stays open, so that the next one can be read from there."""
        if self._is_fortran:
            raise BadDataError("an array in Fortran order; `numpy.ascontiguousarray` of it can be read map by map")
        shape = self.shape[1:]
        check_size(shape)
        if self._stream is None:
            self._stream = zipfile.ZipFile(self._path).open(self._member)  # noqa: SIM115  read on by the next call
        return self._values(self._stream, index * math.prod(shape), shape).reshape(shape)

    def _values(self, stream: IO[bytes], first: int, shape: tuple[int, ...]) -> NDArray[Any]:
        """Read as many values as a shape has, from the value `first` on."""
        num_bytes = math.prod(shape) * self.dtype.itemsize
        stream.seek(self._start + first * self.dtype.itemsize)
        data = stream.read(num_bytes)
        if len(data) != num_bytes:
            raise BadDataError("the array ends too early")
        return np.frombuffer(data, self.dtype)


def open_npz(path: str | os.PathLike[str]) -> dict[str, ArchivedArray]:
    """Open a NumPy archive: arrays by name, of which none is read yet. Objects in it are never unpickled."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise BadDataError("compressed in a way that NumPy never does")
        members = [name for name in archive.namelist() if name.endswith(".npy")]
    return {member.removesuffix(".npy"): ArchivedArray(path, member) for member in members}


def _npy_head(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the head of an array: shape, whether it is in Fortran order, dtype."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise BadDataError(f"an array in version {version[0]}.{version[1]} of the NumPy format, not 1.0 or 2.0")
