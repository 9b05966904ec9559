"""Anomaly maps on disk, read one at a time.

Files come from other people: they are read by `_files`, and whatever is wrong with one is a `BadDataError` that
says what. This module needs the extra `evaluate`.
"""

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
from aupimo_torchmetrics._files.folders import check_inside, find_files
from aupimo_torchmetrics._files.images import check_plain, open_image, read_tiff
from aupimo_torchmetrics._files.limits import plane_of, refusing
from aupimo_torchmetrics._paths import as_name
from aupimo_torchmetrics.evaluate.bad_files import naming
from aupimo_torchmetrics.evaluate.maps.sets import StoredMap, open_set

__all__ = ["MapFiles", "existing_maps", "open_map_files", "open_maps", "read_map"]


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


def open_maps(
    path: str | os.PathLike[str],
    map_suffix: str | None = None,
    split: str | Sequence[str] = (),
    *,
    follow_links: bool = False,
) -> MapFiles:
    """Open a folder of maps, or a file that holds a set of them.

    In a folder each file is a map of the image that has the same path, or a set. What is neither, as the weights of a
    model, is a map that cannot be read. The files of an earlier evaluation in folders `aupimo` are no maps.

    Args:
        path: Folder with maps in folders like those of their images: `.tiff`, `.npy`, `.npz`, `.png`, `.pt`. Or a file
            `asmaps.pt` of the official package, `{"asmaps": (N, H, W), "paths": [...]}`, or another file of a set, as
            `{path: map}`, see `aupimo_torchmetrics.evaluate.maps.sets`.
        map_suffix: Only files of the folder with this ending, in any case, are maps, as `.tiff`; None for every file
            that can be one.
        split: Names of folders, in any case: only maps below one of them count, as `"validation"`. None for all maps.
        follow_links: Whether links may lead out of the folder.

    Returns:
        Names of the maps and what reads them. No map is read yet.

    Raises:
        ValueError: If there is no such file or folder.
        BadDataError: If the file is no file of maps, if there is no map that counts, or if one is a link that leads out
            of the folder or nowhere.
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
        return _below(split, _open_tree(path, map_suffix, follow_links))
    if path.is_file():
        return _below(split, _open_files([path], path.parent))
    raise SettingError(f"Expected `path` to be a file `asmaps.pt` or a folder of maps, but there is no {path}.")


def _below(split: str | Sequence[str], maps: MapFiles) -> MapFiles:
    """Maps that lie below a folder of one of these names; all of them if there is no name."""
    names = {as_name(name).casefold() for name in ([split] if isinstance(split, str) else split)}
    if not names:
        return maps
    folders = [as_name(name).replace("\\", "/").casefold().split("/")[:-1] for name in maps.names]
    indices = [index for index, each in enumerate(folders) if names.intersection(each)]
    if not indices:
        raise BadDataError(f"Expected maps below a folder {' or '.join(sorted(names))}, but found {maps.names[0]}.")
    files = None if maps.files is None else [maps.files[index] for index in indices]
    return MapFiles([maps.names[index] for index in indices], lambda index: maps.read(indices[index]), files)


def existing_maps(name: str, maps: str | os.PathLike[str]) -> Path:
    """Return the parameter `name` as a path; raise unless it is there."""
    if not Path(maps).exists():
        raise SettingError(f"Expected `{name}` to be a file or folder of maps, but there is no {maps}.")
    return Path(maps)


def read_map(maps: MapFiles, index: int) -> Tensor:
    """Read a map (H, W), rounded to float32; raise a BadFileError if it cannot be read."""
    with naming(maps.names[index]):
        return maps.read(index).float()


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
    files = [
        path
        for path in find_files(root, _SUFFIXES, follow_links=follow_links)
        if path.name.lower().endswith((map_suffix or "").lower()) and not _is_of_results(path)
    ]
    if not files:
        raise BadDataError(f"Expected {root} to hold maps ({map_suffix or ', '.join(_SUFFIXES)}), but found none.")
    if not follow_links:
        check_inside(root, files)
    return _open_files(files, root)


def _is_of_results(path: Path) -> bool:
    """Whether a file lies beside the scores of an earlier evaluation, as its curves do."""
    return path.parent.name == "aupimo" and (path.parent / "aupimos.json").is_file()


def _open_files(files: Sequence[Path], root: Path) -> MapFiles:
    """Open files in a folder. One that is not clear among others is a map, of which reading says what is wrong."""
    names, origins, readers = [], [], []
    for path in files:
        file = path.relative_to(root).as_posix()
        try:
            of_file = _maps_in(path)
        except BadDataError as error:
            if len(files) == 1:
                raise BadDataError(f"{path}: {error}") from error
            of_file = [(None, partial(_read_file, path))]
        for name, read in of_file:
            names.append(file if name is None else name)
            origins.append(file)
            # A file of one map is opened when it is read: there may be more than a process may hold open.
            readers.append(partial(_read_file, path) if name is None else partial(_read, read))
    return MapFiles(names, lambda index: readers[index](), origins)


def _maps_in(path: Path) -> list[StoredMap]:
    """Find the map in a file, or the maps of a set, which have names of their own."""
    read = _PICTURES.get(path.suffix.lower())
    return open_set(path) if read is None else [(None, partial(read, path))]


def _read_file(path: Path) -> Tensor:
    """Read a file of one map."""
    maps = _maps_in(path)
    if len(maps) > 1:
        raise BadDataError(f"{len(maps)} maps, not one")
    return _read(maps[0][1])


def _read(read: Callable[[], Any]) -> Tensor:
    """Turn what is read into a map (H, W) float64, or raise what is wrong with it."""
    with refusing():
        values = read()
        size = plane_of(values.shape)
        if size is None:
            raise BadDataError(f"an array of shape {tuple(values.shape)} is no map (H, W)")
        if not isinstance(values, Tensor):
            values = torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("=")))
        if values.dtype == torch.bool or values.is_complex():
            raise BadDataError(f"scores of dtype {values.dtype}")
        anomaly_map = values.detach().to(torch.float64, copy=True).reshape(size)
        kept = anomaly_map.float()
        if kept.isnan().any():
            raise BadDataError("NaN in the map")
        if not kept.isinf().equal(anomaly_map.isinf()) or (anomaly_map.any() and not kept.any()):
            raise BadDataError("scores beyond float32, in which they are kept; please save their logarithm")
        return anomaly_map


def _read_png(path: Path) -> NDArray[Any]:
    """Read a grey image."""
    with open_image(path) as image:
        check_plain(image)
        if len(image.getbands()) != 1 or image.mode == "P":
            raise BadDataError(f"an image of mode {image.mode} is no map with one score a pixel")
        return np.asarray(image)


_PICTURES: dict[str, Callable[[Path], NDArray[Any]]] = {".tiff": read_tiff, ".tif": read_tiff, ".png": _read_png}
"""What reads a map that is a picture, by the suffix of its file."""
_SUFFIXES = (*_PICTURES, ".npy", ".npz", ".pt", ".pth")
"""Suffixes of maps in a folder."""
