"""Anomaly maps on disk, read one at a time.

Files come from other people: they are read by `_files`, and whatever is wrong with one is a `BadDataError` that
says what. This module needs the extra `evaluate`.
"""

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError, SettingError
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
from aupimo_torchmetrics.evaluate.maps.sets import MapSet, NoMapsError, map_size, open_map_set

__all__ = ["MapFiles", "open_map_files", "open_maps"]

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
        return _open_files([path], path.parent)
    raise SettingError(f"Expected `path` to be a file `asmaps.pt` or a folder of maps, but there is no {path}.")


def open_map_files(files: Sequence[Path], names: Sequence[str]) -> MapFiles:
    """Open files of one map each.

    Args:
        files: Files of maps: `.tiff`, `.npy`, `.npz`, `.png`, `.pt`.
        names: Names of the maps.

    Returns:
        Names of the maps and what reads them. No map is read yet.

    """
    return MapFiles(list(names), lambda index: _read_file(files[index]))


def _open_tree(root: Path, map_suffix: str | None, follow_links: bool) -> MapFiles:
    """Find maps in a folder and the folders in it."""
    ending = (map_suffix or "").lower()
    if not any(ending.endswith(suffix) or suffix.endswith(ending) for suffix in _SUFFIXES):
        raise SettingError(f"Expected `map_suffix` to end in {', '.join(_SUFFIXES)}, but got {map_suffix!r}.")
    files = [
        path
        for path in find_files(root, _SUFFIXES, follow_links=follow_links)
        if path.name.lower().endswith(ending) and not _is_of_results(path)
    ]
    if not follow_links:
        check_inside(root, files)
    maps = _open_files(files, root)
    if not maps.names:
        endings = f"`map_suffix={map_suffix}`" if map_suffix else ", ".join(_SUFFIXES)
        raise BadDataError(" ".join((f"Expected {root} to hold maps ({endings}), but found none.", *maps.notes)))
    return maps


def _is_of_results(path: Path) -> bool:
    """Whether a file lies beside the scores of an earlier evaluation, as its curves do."""
    return path.parent.name == "aupimo" and (path.parent / "aupimos.json").is_file()


def _open_files(files: Sequence[Path], root: Path) -> MapFiles:
    """Open files in a folder; those of torch that are not taken for maps are named in a note."""
    maps: list[_Map] = []
    others = []
    is_torch = [path.suffix.lower() in _TORCH_SUFFIXES for path in files]
    has_other_kinds = not all(is_torch)
    for path, may_hold_weights in zip(files, is_torch, strict=True):
        file = path.relative_to(root).as_posix()
        try:
            maps += _maps_in(path, file)
        except BadDataError as error:
            if len(files) == 1:
                raise BadDataError(f"{path}: {error}") from error
            if may_hold_weights and (has_other_kinds or isinstance(error, NoMapsError)):
                others.append(f"{file} ({error})")
            else:
                maps.append(_Map(file, file, partial(_read_file, path)))
    listed = "; ".join(others[:NUM_SHOWN]) + ("; ..." if others[NUM_SHOWN:] else "")
    notes = [f"Files that are no maps: {listed}."] if others else []
    return MapFiles([each.name for each in maps], lambda index: maps[index].read(), [each.file for each in maps], notes)


class _Map(NamedTuple):
    """A map that is not read yet."""

    name: str
    file: str
    read: Callable[[], Tensor]


def _maps_in(path: Path, file: str) -> list[_Map]:
    """Find the map in a file, which gives its name, or the maps of a set with names of their own."""
    maps = None if path.suffix.lower() in _PICTURES else open_map_set(path)
    if maps is None or maps.names is None:  # opened when it is read: there may be more than a process may hold open
        return [_Map(file, file, partial(_read_file, path))]
    return [_Map(name, file, partial(_read_of_set, maps, index)) for index, name in enumerate(maps.names)]


def _read_of_set(maps: MapSet, index: int) -> Tensor:
    """Read one map of several in a file."""
    with refusing():
        return _checked_map(maps.read(index))


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


def _checked_map(values: Tensor | NDArray[Any]) -> Tensor:
    """Turn what was read into a map (H, W) floating, or raise what is wrong with it."""
    size = map_size(tuple(values.shape))
    if size is None:
        raise BadDataError(f"an array of shape {tuple(values.shape)} is no map (H, W)")
    check_size(size)
    anomaly_map = _floating(values)
    if math.isnan(anomaly_map.amax()):
        raise BadDataError("NaN in the map")
    if anomaly_map.dtype == torch.float64:
        _check_range(anomaly_map)
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


def _check_range(anomaly_map: Tensor) -> None:
    """Raise if float32, in which metrics keep scores, makes scores infinite that are not, or all of them 0."""
    finite = anomaly_map[anomaly_map.isfinite()].abs()
    largest = float(finite.amax()) if len(finite) else 0.0
    limits = torch.finfo(torch.float32)
    if largest > limits.max or 0 < largest < limits.tiny:
        raise BadDataError(
            f"scores of up to {largest:.3g} are beyond float32, in which scores are kept. Please save their logarithm, "
            "or another function that keeps their order"
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
NUM_SHOWN = 3
"""How many files that are no maps are named."""
_TORCH_SUFFIXES = (".pt", ".pth")
_SUFFIXES = (*_PICTURES, ".npy", ".npz", *_TORCH_SUFFIXES)
"""Suffixes of maps in a folder."""
