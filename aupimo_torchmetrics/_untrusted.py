"""Read files that other people wrote: no code in them is run, the memory is not filled, no other file is opened.

What the libraries behind promise is not checked again: `torch.load` with `weights_only=True` runs no code from torch
2.6 on, and Pillow and NumPy check what they read against the size that a file states. What they do not promise is
checked here. A file that is refused is a `BadDataError` that says why.

Pillow and tifffile are imported where they are used, as they come with the extras `evaluate` and `demo`.
"""

from __future__ import annotations

import lzma
import math
import os
import pickletools
import sys
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import EllipsisType
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch.torch_version import TorchVersion

from aupimo_torchmetrics._files import BadDataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "PHOTOMETRIC_TAG",
    "WHITE_IS_ZERO",
    "ArchivedArray",
    "check_inside",
    "check_size",
    "find_files",
    "load_tensors",
    "open_image",
    "open_npy",
    "open_npz",
    "orientation_of",
    "read_npy",
    "read_tiff",
    "refusing",
]

MIN_TORCH = TorchVersion("2.6")
"""First version of torch whose `weights_only=True` runs no code of a file, whatever its format (CVE-2025-32434)."""
MAX_PIXELS = 2**27
"""Pixels of the largest file that is read, 11,585 x 11,585: more is taken for a mistake or an attack."""
MAX_TEXT = 1024
"""Characters of the longest text in a file of tensors."""
MAX_TEXTS = 2**27
"""Bytes of all texts together in a NumPy archive."""
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Formats of images and masks. Pillow tries no other: it would read an EPS file by running Ghostscript."""

_ZIP_START = b"PK\3\4"
_UNPACKERS: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: partial(lzma.LZMADecompressor, memlimit=2**28),
}
"""Compressions of TIFF that tifffile unpacks without limit, by their number in the standard, and what unpacks them."""
_LZW = 5
_PACKBITS = 32773
_LIMITED_COMPRESSIONS = (1, _LZW, _PACKBITS)
"""Compressions of TIFF that cannot unpack to more than their pixels: none, LZW (by imagecodecs or Pillow), PackBits."""
_FLOAT_PREDICTOR = 3
PHOTOMETRIC_TAG = 262
WHITE_IS_ZERO = 0
"""Value of that tag if 0 is white."""
_PALETTE = 3
_ORIENTATION_TAG = 274
_PILLOW_TYPES = ("uint8", "uint16", "int16", "int32", "float32")
"""What Pillow reads right of compressed TIFF in little-endian order: not int8, uint32, float16 and float64."""
_PILLOW_TYPES_BIG_ENDIAN = ("uint8", "uint16")
"""What it reads right in big-endian order: of int16, int32 and float32 it swaps the bytes twice."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turn whatever reading a file raises into a BadDataError with the first line of the reason.

    Readers of broken files raise all kinds of errors.
    """
    try:
        yield
    except BadDataError:
        raise
    except Exception as error:
        raise BadDataError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def check_size(shape: tuple[int, ...], limit: int | None = None) -> None:
    """Raise if there are more pixels than `limit`, by default `MAX_PIXELS`."""
    limit = MAX_PIXELS if limit is None else limit
    if math.prod(shape) > limit:
        raise BadDataError(f"too large: {' x '.join(str(length) for length in shape)}, at most {limit:,} pixels")


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
        if isinstance(argument, str) and len(argument) > MAX_TEXT:
            raise BadDataError(f"a text of {len(argument):,} characters, at most {MAX_TEXT:,}")
        if opcode.name in {"BINPUT", "LONG_BINPUT"}:  # gives a number to the object before
            (plain.add if previous in {"BINUNICODE", "GLOBAL"} else plain.discard)(argument)
        elif opcode.name in {"BINGET", "LONG_BINGET"} and argument not in plain:  # the object of a number, once more
            raise BadDataError("one object twice")
        previous = opcode.name


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image]:
    """Open an image whose pixels are not read yet; raise if it has too many, or is of no format in `IMAGE_FORMATS`."""
    from PIL import Image  # noqa: PLC0415

    with Image.open(path, formats=IMAGE_FORMATS) as image:
        check_size((image.height, image.width), min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS))
        yield image


def orientation_of(image: Image) -> int:
    """Return how an image has to be turned before it is shown, as EXIF and TIFF number it; 1 is not at all."""
    return int(image.getexif().get(_ORIENTATION_TAG, 1))


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
            check_size((*self.shape, self.dtype.itemsize), MAX_TEXTS)
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


def read_tiff(path: str | os.PathLike[str], *, may_invert: bool = False) -> NDArray[Any]:
    """Read a TIFF file of one page, of any bits a pixel: the numbers as they are stored.

    tifffile is asked for a page. Asked for a series, it would open other files that are named in this one.

    Args:
        path: File to read.
        may_invert: Whether it is read, too, if 0 is white by its tags, for which some readers invert the numbers.

    Returns:
        The pixels, in the shape of the page.

    Raises:
        BadDataError: If there are several pages, too many pixels, or numbers of which readers do not say the same.

    """
    import tifffile  # noqa: PLC0415

    with tifffile.TiffFile(path) as file:
        if file.pages.is_multipage:
            raise BadDataError("several pages, not one")
        page = file.pages.first
        check_size(page.shape)
        check_size(page.chunks)
        if page.tags.valueof(PHOTOMETRIC_TAG) == WHITE_IS_ZERO and not may_invert:
            raise BadDataError("0 is white by its tags, for which some readers invert the numbers and some do not")
        _check_meaning(page)
        _check_segments(page)
        is_beyond_tifffile = page.compression == _LZW or page.predictor == _FLOAT_PREDICTOR
        if is_beyond_tifffile and find_spec("imagecodecs") is None:
            return _read_tiff_by_pillow(path, page)
        return np.asarray(page.asarray())


def _check_meaning(page: Any) -> None:
    """Raise if a TIFF page has no numbers of which every reader says the same."""
    if page.tags.valueof(PHOTOMETRIC_TAG) == _PALETTE:
        raise BadDataError("colours by a palette, not numbers")
    orientation = page.tags.valueof(_ORIENTATION_TAG, default=1)
    if orientation != 1:
        raise BadDataError(f"turned by its tag of orientation {orientation}, which some readers obey and some do not")


def _read_tiff_by_pillow(path: str | os.PathLike[str], page: Any) -> NDArray[Any]:
    """Read what tifffile cannot unpack without imagecodecs, if it is of a kind that Pillow reads correctly."""
    dtype = page.dtype
    is_read_right = dtype in (_PILLOW_TYPES if page.parent.byteorder == "<" else _PILLOW_TYPES_BIG_ENDIAN)
    if not is_read_right or page.compression == _PACKBITS or sys.byteorder == "big":
        compression, predictor = page.compression.name, page.predictor.name if page.predictor != 1 else "no"
        raise BadDataError(
            f"a TIFF of {dtype} with {compression} compression and {predictor} predictor expects imagecodecs to be "
            "installed. Please install with `pip install imagecodecs`"
        )
    with open_image(path) as image:
        pixels = np.asarray(image)
    if pixels.shape != page.shape:
        raise BadDataError(f"an image of mode {image.mode} is no map with one score a pixel")
    return pixels.astype(dtype)


def _check_segments(page: Any) -> None:
    """Raise if a TIFF page is compressed in a way that is not known here, or unpacks to more than its pixels.

    A segment is a strip or a tile. tifffile unpacks some compressions without limit: a file of a thousandth of the
    memory is enough to fill it.
    """
    if page.compression in _UNPACKERS:
        limit = math.prod(page.chunks) * page.dtype.itemsize
        for data, _ in page.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts):
            if data is not None and len(_UNPACKERS[page.compression]().decompress(data, limit + 1)) > limit:
                raise BadDataError("more compressed data than pixels")
    elif page.compression not in _LIMITED_COMPRESSIONS:
        known = ", ".join(map(str, (*_LIMITED_COMPRESSIONS, *_UNPACKERS)))
        raise BadDataError(f"compression {int(page.compression)}, not {known}; please save it without compression")


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
