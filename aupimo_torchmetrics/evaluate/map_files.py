"""Anomaly maps, masks and images on disk, read one at a time.

Files come from other people: nothing is unpickled but tensors, sizes are checked before pixels are read, and whatever a
decoder stumbles over is a `ValueError` that says what is wrong with the file. This module needs the extra `evaluate`.
"""

from __future__ import annotations

import lzma
import math
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from aupimo_torchmetrics._files import check_inside, find_files
from aupimo_torchmetrics._untrusted import load_tensors

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Formats of images and masks. Whatever else pillow knows is not tried: an EPS file would run Ghostscript."""
MAX_PIXELS = 2**27
"""Pixels of the largest file that is read, 11,585 x 11,585: more is taken for a mistake or an attack."""


class MapFiles(NamedTuple):
    """Anomaly maps that lie on disk."""

    names: list[str]
    """Path of each map's image or of the map itself, as it was given."""
    read: Callable[[int], Tensor]
    """Returns the map of a place in `names` (H, W) floating; raises a ValueError if it cannot be read."""

    def keys(self) -> list[PurePosixPath]:
        """Path of each map without suffix."""
        return [PurePosixPath(name.replace("\\", "/")).with_suffix("") for name in self.names]


def open_maps(path: Path) -> MapFiles:
    """Open a file `asmaps.pt` of the official package, or a tree of `.tiff`, `.npy` and `.png` maps.

    Args:
        path: File with `{"asmaps": (N, h, w), "paths": [...]}`, or folder with maps laid out like their images.

    Returns:
        Names of the maps and what reads them.

    Raises:
        ValueError: If there is no such file or folder, or no map in it, or if one is a link that leads out or nowhere.

    """
    if path.is_dir():
        return _open_tree(path)
    if path.is_file():
        return _open_tensor(path)
    raise ValueError(f"Expected MAPS to be a file `asmaps.pt` or a folder of maps, but there is no {path}.")


def read_mask(paths: tuple[Path, ...]) -> Tensor:
    """Read the union of masks (H, W) bool, true where a pixel is not black.

    Raises:
        ValueError: If a mask cannot be read, or the masks differ in size.

    """
    masks = [_read_mask_file(path) for path in paths]
    if len({mask.shape for mask in masks}) > 1:
        raise ValueError(f"masks of several sizes: {sorted({tuple(mask.shape) for mask in masks})}")
    return torch.stack(masks).any(0)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image, of which only the head is read.

    Raises:
        ValueError: If the image cannot be read.

    """
    with _decoding(), Image.open(path, formats=IMAGE_FORMATS) as image:
        return image.height, image.width


def read_image(path: Path) -> Tensor:
    """Read an image as grey (1, H, W) float32 in [0, 1].

    Raises:
        ValueError: If the image cannot be read.

    """
    with _decoding(), Image.open(path, formats=IMAGE_FORMATS) as image:
        _check_size((image.height, image.width))
        return torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32) / 255)[None]


def _open_tensor(path: Path) -> MapFiles:
    """Open a file of the official package; maps stay on disk until they are asked for."""
    with _decoding(str(path)):
        content = load_tensors(path, mmap=True)
        maps, names = content["asmaps"], content["paths"]
        is_dense = isinstance(maps, Tensor) and not maps.is_nested and maps.layout == torch.strided
        if not is_dense or maps.is_complex() or maps.is_quantized or maps.ndim != 3:
            raise TypeError("`asmaps` is not a dense tensor (N, H, W) of real numbers")
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise TypeError("`paths` is not a list of texts")
        if len(maps) != len(names):
            raise ValueError(f"there are {len(maps)} `asmaps` and {len(names)} `paths`")

    def read(place: int) -> Tensor:
        with _decoding():
            return _checked_map(maps[place])

    return MapFiles(list(names), read)


def _open_tree(root: Path) -> MapFiles:
    """Find maps in a folder and the folders in it."""
    files = find_files(root, _READERS)
    check_inside(root, files)
    if not files:
        raise ValueError(f"Expected MAPS to hold maps ({', '.join(_READERS)}), but found none in {root}.")

    def read(place: int) -> Tensor:
        path = files[place]
        with _decoding():
            return _checked_map(_READERS[path.suffix.lower()](path))

    return MapFiles([path.relative_to(root).as_posix() for path in files], read)


def _checked_map(values: Tensor | NDArray[Any]) -> Tensor:
    """Turn what was read into a map (H, W) floating, or raise what is wrong with it."""
    _check_size(tuple(values.shape))
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiu":
            raise ValueError(f"scores of dtype {values.dtype}")
        scores = np.array(values, dtype=values.dtype.newbyteorder("="))
        # Bytes and 16-bit numbers are exact in float32.
        anomaly_map = torch.from_numpy(scores if scores.dtype.kind == "f" else scores.astype(np.float32))
    else:
        anomaly_map = values.clone() if values.is_floating_point() else values.float()
    size = [length for length in anomaly_map.shape if length != 1] if anomaly_map.ndim > 2 else anomaly_map.shape
    if len(size) != 2 or anomaly_map.numel() == 0:
        raise ValueError(f"an array of shape {tuple(anomaly_map.shape)} is no map (H, W)")
    if bool(anomaly_map.isnan().any()):
        raise ValueError("NaN in the map")
    return anomaly_map.reshape(*size)


def _read_tiff(path: Path) -> NDArray[Any]:
    """Read a TIFF file of one page, of 16 or 32 bits a pixel too.

    A page, not a series, for which tifffile would open other files that are named in this one.
    """
    import tifffile  # noqa: PLC0415

    with tifffile.TiffFile(path) as file:
        if file.pages.is_multipage:
            raise ValueError("several pages, not one")
        page = file.pages.first
        _check_size(page.shape)
        _check_size(page.chunks)
        _check_segments(page)
        return np.asarray(page.asarray())


def _check_segments(page: Any) -> None:
    """Raise if a TIFF page is compressed in a way that is not known here, or unpacks to more than its pixels.

    tifffile unpacks some compressions without limit: a thousandth of the memory is enough to fill it.
    """
    if page.compression in _UNLIMITED:
        limit = math.prod(page.chunks) * page.dtype.itemsize
        for data, _ in page.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts):
            if data is not None and len(_UNLIMITED[page.compression]().decompress(data, limit + 1)) > limit:
                raise ValueError("more compressed data than pixels")
    elif page.compression not in _LIMITED:
        raise ValueError(f"compression {int(page.compression)}, not {', '.join(map(str, (*_LIMITED, *_UNLIMITED)))}")


def _read_npy(path: Path) -> NDArray[Any]:
    """Read a NumPy file without objects in it; not an archive of several."""
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))


def _read_png(path: Path) -> NDArray[Any]:
    """Read a grey image."""
    with Image.open(path, formats=IMAGE_FORMATS) as image:
        _check_size((image.height, image.width))
        if len(image.getbands()) != 1 or image.mode == "P":
            raise ValueError(f"an image of mode {image.mode} is no map with one score a pixel")
        return np.asarray(image)


_UNLIMITED: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: partial(lzma.LZMADecompressor, memlimit=2**28),
}
"""What unpacks compressed TIFF pages that tifffile by itself unpacks without limit, by their number in the standard."""
_LIMITED = (1, 5, 32773)
"""TIFF pages without compression, or packed by LZW, for which tifffile needs imagecodecs, or by PackBits."""
_READERS: dict[str, Callable[[Path], NDArray[Any]]] = {
    ".tiff": _read_tiff,
    ".tif": _read_tiff,
    ".npy": _read_npy,
    ".png": _read_png,
}
"""What reads a map by the suffix of its file."""


def _read_mask_file(path: Path) -> Tensor:
    """Read one mask (H, W) bool."""
    with _decoding(), Image.open(path, formats=IMAGE_FORMATS) as image:
        _check_size((image.height, image.width))
        has_levels = len(image.getbands()) == 1
        pixels = np.asarray(image if has_levels else image.convert("RGB"))
        return torch.from_numpy(pixels != 0 if has_levels else pixels.any(2))


def _check_size(shape: tuple[int, ...]) -> None:
    """Raise if there are more pixels than a map, mask or image can have."""
    if math.prod(shape) > MAX_PIXELS:
        raise ValueError(f"too large: {' x '.join(str(length) for length in shape)}, at most {MAX_PIXELS:,} pixels")


@contextmanager
def _decoding(name: str = "") -> Iterator[None]:
    """Turn whatever a decoder raises or warns of into a ValueError that says what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except Exception as error:  # decoders of hostile files raise all kinds of errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{name}: {reason}" if name else reason) from error
