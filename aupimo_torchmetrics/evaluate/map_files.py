"""Anomaly maps and images on disk, read one at a time.

Files come from other people: they are read by `_untrusted`, and whatever is wrong with one is a `BadDataError` that
says what. This module needs the extra `evaluate`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files import BadDataError
from aupimo_torchmetrics._untrusted import (
    check_inside,
    check_size,
    find_files,
    load_tensors,
    open_image,
    read_npy,
    read_tiff,
    refusing,
)

__all__ = ["MapFiles", "image_size", "open_maps", "read_image"]

require("PIL", "tifffile", extra="evaluate", needed_by="aupimo_torchmetrics.evaluate")


class MapFiles(NamedTuple):
    """Anomaly maps that lie on disk."""

    names: list[str]
    """Path of each map's image or of the map itself, as it was given."""
    read: Callable[[int], Tensor]
    """Returns the map (H, W) floating of an index in `names`; raises a BadDataError if it cannot be read."""

    def keys(self) -> list[PurePosixPath]:
        """Return the path of each map without suffix."""
        return [PurePosixPath(name.replace("\\", "/")).with_suffix("") for name in self.names]


def open_maps(path: str | os.PathLike[str], map_suffix: str | None = None, *, follow_links: bool = False) -> MapFiles:
    """Open a file `asmaps.pt` of the official package, or a tree of `.tiff`, `.npy` and `.png` maps.

    Args:
        path: File with `{"asmaps": (N, H, W), "paths": [...]}`, or folder with maps in folders like those of their
            images.
        map_suffix: Only files with this ending are maps, as `.tiff`; None for every file that can be one.
        follow_links: Whether links may lead out of the folder.

    Returns:
        Names of the maps and what reads them. No map is read yet.

    Raises:
        ValueError: If there is no such file or folder.
        BadDataError: If the file is no file of maps, if there is no map, or if one is a link that leads out of the
            folder or nowhere.
        ImportError: If `path` is a file and the installed torch is older than 2.6.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from aupimo_torchmetrics.evaluate import open_maps
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "asmaps.pt")
        ...     torch.save({"asmaps": torch.zeros(1, 2, 3), "paths": ["bottle/test/good/000.png"]}, file)
        ...     maps = open_maps(file)
        ...     maps.names, maps.read(0).shape
        (['bottle/test/good/000.png'], torch.Size([2, 3]))

    """
    path = Path(path)
    if path.is_dir():
        return _open_tree(path)
    if path.is_file():
        return _open_tensor(path)
    raise ValueError(f"Expected `path` to be a file `asmaps.pt` or a folder of maps, but there is no {path}.")


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the height and width of an image, in pixels, of which only the head is read.

    Args:
        path: File of the image.

    Returns:
        Height and width.

    Raises:
        BadDataError: If the image cannot be read, or is too large.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate.map_files import image_size
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "000.png")
        ...     Image.new("RGB", (3, 2)).save(file)
        ...     image_size(file)
        (2, 3)

    """
    with refusing(), open_image(path) as image:
        return image.height, image.width


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read an image in grey.

    Args:
        path: File of the image.

    Returns:
        (1, H, W) float32 in [0, 1].

    Raises:
        BadDataError: If the image cannot be read, or is too large.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate.map_files import read_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "000.png")
        ...     Image.new("RGB", (3, 2), "white").save(file)
        ...     read_image(file)
        tensor([[[1., 1., 1.],
                 [1., 1., 1.]]])

    """
    with refusing(), open_image(path) as image:
        return torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32) / 255)[None]


def _open_tensor(path: Path) -> MapFiles:
    """Open a file of the official package; maps stay on disk until they are asked for."""
    try:
        content = load_tensors(path, mmap=True)
        with refusing():
            maps, names = _maps_and_names(content)
    except BadDataError as error:
        raise BadDataError(f"{path}: {error}") from error

    def read(index: int) -> Tensor:
        with refusing():
            return _checked_map(maps[index])

    return MapFiles(names, read)


def _maps_and_names(content: Any) -> tuple[Tensor, list[str]]:
    """Return the maps (N, H, W) that a file of the official package holds, and the paths of their N images."""
    if not isinstance(content, dict) or not {"asmaps", "paths"} <= content.keys():
        raise BadDataError("not a dict with `asmaps` and `paths`")
    maps, names = content["asmaps"], content["paths"]
    is_dense = isinstance(maps, Tensor) and not maps.is_nested and maps.layout == torch.strided
    if not is_dense or maps.is_complex() or maps.is_quantized or maps.ndim != 3:
        raise BadDataError("`asmaps` is not a dense tensor (N, H, W) of real numbers")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise BadDataError("`paths` is not a list of texts")
    if len(maps) != len(names) or not names:
        raise BadDataError(f"there are {len(maps)} `asmaps` and {len(names)} `paths`")
    return maps, list(names)


def _open_tree(root: Path) -> MapFiles:
    """Find maps in a folder and the folders in it."""
    files = find_files(root, _READERS)
    check_inside(root, files)
    if not files:
        raise BadDataError(f"Expected {root} to hold maps ({', '.join(_READERS)}), but found none.")

    def read(index: int) -> Tensor:
        path = files[index]
        with refusing():
            return _checked_map(_READERS[path.suffix.lower()](path))

    return MapFiles([path.relative_to(root).as_posix() for path in files], read)


def _checked_map(values: Tensor | NDArray[Any]) -> Tensor:
    """Turn what was read into a map (H, W) floating, or raise what is wrong with it."""
    check_size(tuple(values.shape))
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiu":
            raise BadDataError(f"scores of dtype {values.dtype}")
        scores = np.array(values, dtype=values.dtype.newbyteorder("="))
        # Bytes and 16-bit numbers are exact in float32.
        anomaly_map = torch.from_numpy(scores if scores.dtype.kind == "f" else scores.astype(np.float32))
    else:
        anomaly_map = values.clone() if values.is_floating_point() else values.float()
    size = [length for length in anomaly_map.shape if length != 1] if anomaly_map.ndim > 2 else anomaly_map.shape
    if len(size) != 2 or anomaly_map.numel() == 0:
        raise BadDataError(f"an array of shape {tuple(anomaly_map.shape)} is no map (H, W)")
    if bool(anomaly_map.isnan().any()):
        raise BadDataError("NaN in the map")
    return anomaly_map.reshape(*size)


def _read_png(path: Path) -> NDArray[Any]:
    """Read a grey image."""
    with open_image(path) as image:
        if len(image.getbands()) != 1 or image.mode == "P":
            raise BadDataError(f"an image of mode {image.mode} is no map with one score a pixel")
        return np.asarray(image)


_READERS: dict[str, Callable[[Path], NDArray[Any]]] = {
    ".tiff": read_tiff,
    ".tif": read_tiff,
    ".npy": read_npy,
    ".png": _read_png,
}
"""What reads a map by the suffix of its file."""
