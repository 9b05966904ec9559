"""Anomaly maps and images on disk, read one at a time.

Files come from other people: they are read by `_files`, and whatever is wrong with one is a `BadDataError` that
says what. This module needs the extra `evaluate`.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files import (
    check_inside,
    check_size,
    find_files,
    open_image,
    orientation_of,
    read_tiff,
    refusing,
)
from aupimo_torchmetrics.evaluate.maps.sets import NoMapsError, map_size, open_map_set

__all__ = ["MapFiles", "image_size", "is_turned", "open_map_files", "open_maps", "read_image"]

require("PIL", "tifffile", extra="evaluate", needed_by="aupimo_torchmetrics.evaluate")


class MapFiles(NamedTuple):
    """Anomaly maps that lie on disk.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.evaluate import MapFiles
        >>> stack = torch.zeros(2, 4, 6)
        >>> maps = MapFiles(["good/000.png", "crack/000.png"], lambda index: stack[index])
        >>> maps.read(1).shape
        torch.Size([4, 6])

    """

    names: list[str]
    """Path of each map's image or of the map itself, as it was given."""
    read: Callable[[int], Tensor]
    """Returns the map (H, W) floating of an index in `names`; raises a BadDataError if it cannot be read."""
    files: list[str] | None = None
    """Path in its folder of the file that each map is in; None if maps are not those of a folder."""
    notes: Sequence[str] = ()
    """Which files were not taken for maps, a sentence."""


def open_maps(path: str | os.PathLike[str], map_suffix: str | None = None, *, follow_links: bool = False) -> MapFiles:
    """Open a folder of maps, or a file that holds a set of them.

    In a folder each file is a map of the image that has the same path, or a set. A file of torch (`.pt`, `.pth`) of
    which it is not clear what are the maps, as the weights of a model, is passed over, and a note says so. One that
    cannot be read is a bad file, or passed over as well where there are files of maps of another kind. The files of an
    earlier evaluation in folders `aupimo` are no maps.

    Args:
        path: Folder with maps in folders like those of their images: `.tiff`, `.npy`, `.npz`, `.png`, `.pt`. Or a file
            `asmaps.pt` of the official package, `{"asmaps": (N, H, W), "paths": [...]}`, or another file of a set, as
            `{path: map}`, see `aupimo_torchmetrics.evaluate.maps.sets`.
        map_suffix: Only files of the folder with this ending, in any case, are maps, as `.tiff`; None for every file
            that can be one.
        follow_links: Whether links may lead out of the folder.

    Returns:
        Names of the maps and what reads them. No map is read yet.

    Raises:
        ValueError: If there is no such file or folder, or if no map can have the suffix.
        BadDataError: If the file is no file of maps, if there is no map, or if one is a link that leads out of the
            folder or nowhere.
        ImportError: If there is a file of torch and the installed torch is older than 2.6.

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
        return _open_tree(path, map_suffix, follow_links)
    if path.is_file():
        return _open_given(path, path.name)
    raise ValueError(f"Expected `path` to be a file `asmaps.pt` or a folder of maps, but there is no {path}.")


def open_map_files(files: Sequence[Path], names: Sequence[str]) -> MapFiles:
    """Open files of one map each.

    Args:
        files: Files of maps: `.tiff`, `.npy`, `.npz`, `.png`, `.pt`.
        names: Names of the maps.

    Returns:
        Names of the maps and what reads them. No map is read yet.

    """
    return MapFiles(list(names), lambda index: _read_file(files[index]))


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
        >>> from aupimo_torchmetrics.evaluate.maps.open import image_size
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "000.png")
        ...     Image.new("RGB", (3, 2)).save(file)
        ...     image_size(file)
        (2, 3)

    """
    with refusing(), open_image(path) as image:
        return image.height, image.width


def is_turned(path: str | os.PathLike[str]) -> bool:
    """Return whether EXIF says that an image is to be turned by a quarter before it is shown.

    Args:
        path: File of the image.

    Returns:
        Whether its height and width change places.

    Raises:
        BadDataError: If the image cannot be read, or is too large.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate.maps.open import is_turned
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "000.jpg")
        ...     image = Image.new("L", (3, 2))
        ...     image.getexif()[274] = 6
        ...     image.save(file, exif=image.getexif())
        ...     is_turned(file)
        True

    """
    with refusing(), open_image(path) as image:
        return orientation_of(image) in _QUARTER_TURNS


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
        >>> from aupimo_torchmetrics.evaluate.maps.open import read_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "000.png")
        ...     Image.new("RGB", (3, 2), "white").save(file)
        ...     read_image(file)
        tensor([[[1., 1., 1.],
                 [1., 1., 1.]]])

    """
    with refusing(), open_image(path) as image:
        return torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32) / 255)[None]


def _open_file(path: Path, name: str) -> MapFiles:
    """Open a file of one map, which gives the name, or of a set with names of its own."""
    names = None
    if path.suffix.lower() not in _PICTURES:
        names, read = open_map_set(path)
    if names is None:
        return _of_one_map(path, name)

    def read_checked(index: int) -> Tensor:
        with refusing():
            return _checked_map(read(index))

    return MapFiles(names, read_checked, [name] * len(names))


def _of_one_map(path: Path, name: str) -> MapFiles:
    """Take a file for one map, which is opened when it is read: there may be more than a process may hold open."""
    return MapFiles([name], lambda _: _read_file(path), [name])


def _read_file(path: Path) -> Tensor:
    """Read a file of one map."""
    with refusing():
        read = _PICTURES.get(path.suffix.lower())
        if read is not None:
            return _checked_map(read(path))
        maps = open_map_set(path, is_one_map=True)
        if maps.names is not None and len(maps.names) > 1:
            raise BadDataError(f"{len(maps.names)} maps, not one")
        return _checked_map(maps.read(0))


def _open_tree(root: Path, map_suffix: str | None, follow_links: bool) -> MapFiles:
    """Find maps in a folder and the folders in it."""
    ending = (map_suffix or "").lower()
    if not any(ending.endswith(suffix) or suffix.endswith(ending) for suffix in _SUFFIXES):
        raise ValueError(f"Expected `map_suffix` to end in {', '.join(_SUFFIXES)}, but got {map_suffix!r}.")
    files = [
        path
        for path in find_files(root, _SUFFIXES, follow_links=follow_links)
        if path.name.lower().endswith(ending) and not _is_of_results(path)
    ]
    if not follow_links:
        check_inside(root, files)
    if len(files) == 1:
        return _open_given(files[0], files[0].relative_to(root).as_posix())
    opened, others = _open_files(files, root)
    reasons = "; ".join(others[:NUM_SHOWN]) + ("; ..." if others[NUM_SHOWN:] else "")
    if not opened:
        endings = f"`map_suffix={map_suffix}`" if map_suffix else ", ".join(_SUFFIXES)
        raise BadDataError(f"Expected {root} to hold maps ({endings}), but found none{reasons and f': {reasons}'}.")
    return _joined(opened, [f"Files that are no maps: {reasons}."] if others else [])


def _is_of_results(path: Path) -> bool:
    """Whether a file lies beside the scores of an earlier evaluation, as its curves do."""
    return path.parent.name == "aupimo" and (path.parent / "aupimos.json").is_file()


def _open_given(path: Path, name: str) -> MapFiles:
    """Open the only file of maps."""
    try:
        return _open_file(path, name)
    except BadDataError as error:
        raise BadDataError(f"{path}: {error}") from error


def _open_files(files: Sequence[Path], root: Path) -> tuple[list[MapFiles], list[str]]:
    """Open files in a folder; those of torch that are not taken for maps are named with the reason."""
    opened, others = [], []
    is_torch = [path.suffix.lower() in _TORCH_SUFFIXES for path in files]
    for path, may_hold_weights in zip(files, is_torch, strict=True):
        name = path.relative_to(root).as_posix()
        try:
            opened.append(_open_file(path, name))
        except BadDataError as error:
            if may_hold_weights and (isinstance(error, NoMapsError) or not all(is_torch)):
                others.append(f"{name} ({error})")
            else:
                opened.append(_of_one_map(path, name))
    return opened, others


def _joined(opened: Sequence[MapFiles], notes: Sequence[str]) -> MapFiles:
    """Join the maps of several files."""
    places = [(maps, index) for maps in opened for index in range(len(maps.names))]

    def read(index: int) -> Tensor:
        maps, place = places[index]
        return maps.read(place)

    names = [name for maps in opened for name in maps.names]
    return MapFiles(names, read, [file for maps in opened for file in maps.files or ()], notes)


def _checked_map(values: Tensor | NDArray[Any]) -> Tensor:
    """Turn what was read into a map (H, W) floating, or raise what is wrong with it."""
    size = map_size(tuple(values.shape))
    if size is None:
        raise BadDataError(f"an array of shape {tuple(values.shape)} is no map (H, W)")
    check_size(size)
    anomaly_map = _floating(values)
    low, high = (bound.item() for bound in anomaly_map.aminmax())
    if math.isnan(low):  # of NaN among others, both are NaN
        raise BadDataError("NaN in the map")
    if anomaly_map.dtype == torch.float64:
        _check_range(anomaly_map, low, high)
    return anomaly_map.reshape(size)


def _floating(values: Tensor | NDArray[Any]) -> Tensor:
    """Copy scores to a floating tensor that holds the same numbers, as far as float64 can."""
    if not isinstance(values, Tensor):
        if values.dtype.kind not in "fiu" or values.dtype.itemsize > 8:
            raise BadDataError(f"scores of dtype {values.dtype}")
        values = torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("=")))
    if values.dtype == torch.bool or values.is_complex():
        raise BadDataError(f"scores of dtype {values.dtype}")
    if values.is_floating_point() and values.dtype.itemsize > 1:
        return values.clone()
    # Bytes and 16-bit numbers are exact in float32.
    return values.to(torch.float32 if values.dtype.itemsize <= 2 else torch.float64)


def _check_range(anomaly_map: Tensor, low: float, high: float) -> None:
    """Raise if float32, in which metrics keep scores, makes scores infinite that are not, or all of them 0."""
    largest, smallest = torch.finfo(torch.float32).max, torch.finfo(torch.float32).tiny
    if max(abs(low), abs(high)) > largest:  # infinite scores may hide large ones
        finite = anomaly_map[anomaly_map.isfinite()]
        if bool((finite.abs() > largest).any()):
            raise BadDataError(
                f"scores from {low:.3g} to {high:.3g} are beyond float32, in which scores are kept. "
                "Please save their logarithm, or another function that keeps their order"
            )
    elif 0 < max(abs(low), abs(high)) < smallest:
        raise BadDataError(
            f"scores from {low:.3g} to {high:.3g} are all too close to 0 for float32, in which scores are kept. "
            "Please save their logarithm, or another function that keeps their order"
        )


def _read_png(path: Path) -> NDArray[Any]:
    """Read a grey image."""
    with open_image(path) as image:
        if len(image.getbands()) != 1 or image.mode == "P":
            raise BadDataError(f"an image of mode {image.mode} is no map with one score a pixel")
        if getattr(image, "is_animated", False):
            raise BadDataError("several pictures, not one")
        if orientation_of(image) != 1:
            raise BadDataError("turned by its EXIF orientation, which some readers obey and some do not")
        return np.asarray(image)


_PICTURES: dict[str, Callable[[Path], NDArray[Any]]] = {".tiff": read_tiff, ".tif": read_tiff, ".png": _read_png}
"""What reads a map that is a picture, by the suffix of its file."""
_QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations in EXIF by which height and width change places."""
NUM_SHOWN = 3
"""How many files that are no maps are named."""
_TORCH_SUFFIXES = (".pt", ".pth")
_SUFFIXES = (*_PICTURES, ".npy", ".npz", *_TORCH_SUFFIXES)
"""Suffixes of maps in a folder."""
