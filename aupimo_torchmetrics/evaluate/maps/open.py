"""Anomaly maps on disk, read one at a time.

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

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files import (
    check_inside,
    check_size,
    find_files,
    load_tensors,
    open_image,
    orientation_of,
    read_tiff,
    refusing,
)
from aupimo_torchmetrics.evaluate.maps.sets import open_map_set, paths_file

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


def open_maps(path: str | os.PathLike[str], map_suffix: str | None = None, *, follow_links: bool = False) -> MapFiles:
    """Open a folder of maps, or a file that holds a set of them.

    In a folder each file is a map of the image that has the same path, or a set. Files `.pt` and `.pth` that hold
    something else, as the weights of a model, are no maps, nor are broken ones unless files beside them with the same
    suffix are maps of one image, nor the files of an earlier evaluation in folders `aupimo`.

    Args:
        path: Folder with maps in folders like those of their images: `.tiff`, `.npy`, `.npz`, `.png`, `.pt`. Or a file
            `asmaps.pt` of the official package, `{"asmaps": (N, H, W), "paths": [...]}`, or an `.npz` or `.npy` of the
            kind, see `aupimo_torchmetrics.evaluate.maps.sets.open_map_set`.
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
        return _joined([_open_file(path, path.name)])
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


def _open_file(path: Path, name: str) -> MapFiles:
    """Open a file of one map, which gives the name, or of a set with names of its own."""
    if path.suffix.lower() in _PICTURES:
        return MapFiles([name], lambda _: _read_file(path))
    try:
        maps = open_map_set(path)
    except BadDataError as error:
        raise BadDataError(f"{path}: {error}") from error

    def read(index: int) -> Tensor:
        with refusing():
            return _checked_map(maps.read(index))

    # A single map is opened when it is read: there may be more of them than a process may hold open.
    return MapFiles([name], lambda _: _read_file(path)) if maps.names is None else MapFiles(maps.names, read)


def _read_file(path: Path) -> Tensor:
    """Read a file of one map."""
    with refusing():
        read = _PICTURES.get(path.suffix.lower())
        if read is not None:
            return _checked_map(read(path))
        maps = open_map_set(path)
        if maps.names is not None and len(maps.names) > 1:
            raise BadDataError(f"{len(maps.names)} maps, not one")
        return _checked_map(maps.read(0))


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
    if len(files) == 1:
        return _open_file(files[0], files[0].relative_to(root).as_posix())
    opened = {path: each for path in files if (each := _open_in_tree(path, root)) is not None}
    # A broken file of torch is a map if others in its folder are maps of one image; else it may be weights of a model.
    kinds = {_kind(path) for path, maps in opened.items() if maps.names == [path.relative_to(root).as_posix()]}
    skipped = {path: reason for path in files if path not in opened and (reason := _why_broken(path))}
    opened |= {path: _of_one_map(path, root) for path in skipped if _kind(path) in kinds}
    if not opened:
        which = f"`map_suffix={map_suffix}`" if map_suffix else ", ".join(_SUFFIXES)
        reason = next((f" {path}: {reason}." for path, reason in skipped.items()), "")
        raise BadDataError(f"Expected {root} to hold maps ({which}), but found none.{reason}")
    found = {path: opened[path] for path in files if path in opened}
    in_files = [path.relative_to(root).as_posix() for path, maps in found.items() for _ in maps.names]
    return _joined(list(found.values()))._replace(files=in_files)


def _is_of_results(path: Path) -> bool:
    """Whether a file lies beside the scores of an earlier evaluation, as its curves do."""
    return path.parent.name == "aupimo" and (path.parent / "aupimos.json").is_file()


def _open_in_tree(path: Path, root: Path) -> MapFiles | None:
    """Open one of several files in a folder; None if it is a file of torch that holds no maps."""
    # That an array without a text beside it is one map is said by its shape when it is read.
    if path.suffix.lower() == ".npy" and not paths_file(path).is_file():
        return _of_one_map(path, root)
    try:
        return _open_file(path, path.relative_to(root).as_posix())
    except BadDataError:
        return None if path.suffix.lower() in _TORCH_SUFFIXES else _of_one_map(path, root)


def _of_one_map(path: Path, root: Path) -> MapFiles:
    """Take a file in a folder for one map, which is opened when it is read."""
    return MapFiles([path.relative_to(root).as_posix()], lambda _: _read_file(path))


def _kind(path: Path) -> tuple[Path, str]:
    """Folder and suffix of a file."""
    return path.parent, path.suffix.lower()


def _why_broken(path: Path) -> str:
    """Say why a file of torch cannot be read; empty if it can, whatever it holds."""
    try:
        load_tensors(path, mmap=True)
    except BadDataError as error:
        return str(error)
    return ""


def _joined(opened: Sequence[MapFiles]) -> MapFiles:
    """Join the maps of several files."""
    places = [(maps, index) for maps in opened for index in range(len(maps.names))]

    def read(index: int) -> Tensor:
        maps, place = places[index]
        return maps.read(place)

    return MapFiles([name for maps in opened for name in maps.names], read)


def _checked_map(values: Tensor | NDArray[Any]) -> Tensor:
    """Turn what was read into a map (H, W) floating, or raise what is wrong with it."""
    check_size(tuple(values.shape))
    anomaly_map = _floating(values)
    size = [length for length in anomaly_map.shape if length != 1] if anomaly_map.ndim > 2 else anomaly_map.shape
    if len(size) != 2 or anomaly_map.numel() == 0:
        raise BadDataError(f"an array of shape {tuple(anomaly_map.shape)} is no map (H, W)")
    low, high = (bound.item() for bound in anomaly_map.aminmax())
    if math.isnan(low):  # of NaN among others, both are NaN
        raise BadDataError("NaN in the map")
    if anomaly_map.dtype == torch.float64:
        _check_range(anomaly_map, low, high)
    return anomaly_map.reshape(*size)


def _floating(values: Tensor | NDArray[Any]) -> Tensor:
    """Copy scores to a floating tensor that holds the same numbers, as far as float64 can."""
    if isinstance(values, Tensor):
        if values.dtype == torch.bool or values.is_complex():
            raise BadDataError(f"scores of dtype {values.dtype}")
        if values.is_floating_point() and values.dtype.itemsize > 1:
            return values.clone()
        return values.to(torch.float32 if values.dtype.itemsize <= 2 else torch.float64)
    if values.dtype.kind not in "fiu" or values.dtype.itemsize > 8:
        raise BadDataError(f"scores of dtype {values.dtype}")
    if values.dtype.kind == "f":
        return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("=")))
    # Bytes and 16-bit numbers are exact in float32.
    return torch.from_numpy(values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64))


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
_TORCH_SUFFIXES = (".pt", ".pth")
_SUFFIXES = (*_PICTURES, ".npy", ".npz", *_TORCH_SUFFIXES)
"""Suffixes of maps in a folder."""
