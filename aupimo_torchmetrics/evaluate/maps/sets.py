"""Files that hold one map or a whole set of them: `.npy`, `.npz`, and what `torch.save` wrote.

A map is an array (H, W), or one with axes of length 1 beside these. Several maps are a set if the file says which image
each belongs to, for the order of maps does not: an array (N, H, W) or (N, 1, H, W) with the paths of its images in the
same file, or one a line in a text file beside it; or a dictionary `{path: map}`.

Of a dictionary with other arrays, the maps are what is called so (`MAP_NAMES`), or else the only array of the right
shape that is called neither a mask (`MASK_NAMES`) nor a weight of a model, which has a dot in its name; among several
the only floating one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files import check_size, load_tensors, open_npy, open_npz, refusing
from aupimo_torchmetrics.evaluate.data.folders import IMAGE_SUFFIXES

__all__ = ["MAP_NAMES", "MASK_NAMES", "PATH_NAMES", "MapSet", "NoMapsError", "map_size", "open_map_set"]

MAP_NAMES = ("asmaps", "anomaly_maps", "anomaly_map", "maps", "map")
"""Names of the maps in a file that holds other arrays too."""
MASK_NAMES = ("mask", "masks", "gt", "gt_mask", "gt_masks", "ground_truth", "label", "labels", "target", "pred_mask")
"""Names of what is never a map, in lower case."""
PATH_NAMES = ("paths", "path", "image_paths", "image_path", "names", "image_names", "filenames", "files")
"""Names of the paths of the images in a file."""
_PATH_SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".npz", ".pt", ".pth")
"""How names end that are paths; names with a folder are paths, too."""


class NoMapsError(BadDataError):
    """A file of tensors was read, and holds no maps, or does not say which of its tensors they are."""


class MapSet(NamedTuple):
    """The maps in a file, of which none is read yet."""

    names: list[str] | None
    """Path of each map's image; None if the file holds one map and no path."""
    read: Callable[[int], Any]
    """Returns an array or tensor of one map by its index."""


def open_map_set(path: Path, *, is_one_map: bool = False) -> MapSet:
    """Open a file of maps.

    Args:
        path: `.npy`, `.npz`, or a file of `torch.save` with any other ending.
        is_one_map: Whether the file is one of many, so that a text beside it says nothing about it.

    Returns:
        One map without a name, or any number with the paths of their images.

    Raises:
        BadDataError: If it cannot be read, or holds several maps without the paths of their images.
        NoMapsError: If it holds no maps, or if it is not clear which of its arrays they are.
        ImportError: If it is a file of `torch.save` and the installed torch is older than 2.6.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from aupimo_torchmetrics.evaluate.maps.sets import open_map_set
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "maps.npz")
        ...     np.savez(file, **{"test/good/000.png": np.zeros((4, 4)), "test/good/001.png": np.zeros((4, 5))})
        ...     maps = open_map_set(file)
        ...     maps.names, maps.read(1).shape
        (['test/good/000.png', 'test/good/001.png'], (4, 5))

    """
    content = _content(path)
    with refusing():
        arrays = {key: value for key, value in content.items() if len(_shape(value)) >= 2 and 0 not in _shape(value)}
        if any(_is_path(key) for key in arrays):
            return _by_path(arrays)
        names = _names_in(content)
        maps = _find_maps(content, arrays, has_paths=names is not None)
        if names is None and not is_one_map and map_size(_shape(maps)) is None:
            names = _names_beside(path, _shape(maps))
        return _with_names(maps, names)


def map_size(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Height and width of a map with an array of such a shape; None if it is no map."""
    size = tuple(length for length in shape if length != 1) if len(shape) > 2 else shape
    return size if len(size) == 2 and 0 not in size else None


def _content(path: Path) -> dict[str, Any]:
    """Open whatever is in a file, by name; an array without a name is called `maps`."""
    with refusing():
        if path.suffix.lower() == ".npy":
            return {"maps": open_npy(path)}
        if path.suffix.lower() == ".npz":
            return dict(open_npz(path))
    content = load_tensors(path, mmap=True)
    if isinstance(content, Tensor):
        return {"maps": content}
    if not isinstance(content, dict):
        raise NoMapsError(f"a {type(content).__name__}, not a tensor, nor a dict of tensors")
    return {key: value for key, value in content.items() if isinstance(key, str)}


def _shape(value: Any) -> tuple[int, ...]:
    """Shape of an array; of what has none, as a nested tensor, that of a number."""
    return () if getattr(value, "is_nested", False) else tuple(getattr(value, "shape", ()))


def _is_path(name: str) -> bool:
    """Whether the name of an array is the path of an image or of a map."""
    return "/" in name or "\\" in name or name.lower().endswith(_PATH_SUFFIXES)


def _by_path(arrays: dict[str, Any]) -> MapSet:
    """Take each array for the map of the image by whose path it is called."""
    others = [key for key in arrays if not _is_path(key)]
    if others:
        raise NoMapsError(f"{_listed(others)} beside maps by the paths of their images")
    names = list(arrays)

    def read(index: int) -> Any:
        check_size(_shape(arrays[names[index]]))
        return _values(arrays[names[index]])

    return MapSet(names, read)


def _find_maps(content: dict[str, Any], arrays: dict[str, Any], *, has_paths: bool) -> Any:
    """Find the one array of maps among the arrays of two and more axes in a file."""
    keys = [key for key in content if key in MAP_NAMES]
    if not keys:
        shapes = {key: _shape(arrays[key]) for key in arrays if key.lower() not in MASK_NAMES and "." not in key}
        keys = [key for key, shape in shapes.items() if has_paths or (map_size(shape) and {*shape} != {1})]
        keys = keys or list(shapes)[:1]
    if len(keys) > 1:
        keys = [key for key in keys if _is_floating(content[key])] or keys
    if not keys:
        raise NoMapsError(f"no array of maps among {_listed(list(content)) or 'texts that name arrays'}")
    if len(keys) > 1:
        raise NoMapsError(
            f"{_listed(keys)} may all be the maps. Please name one `{MAP_NAMES[0]}`, or each by the path of its image"
        )
    if keys[0] not in arrays:
        kind, shape = type(content[keys[0]]).__name__, _shape(content[keys[0]])
        raise NoMapsError(f"{keys[0]!r} of type {kind} and shape {shape} is no array of maps")
    return arrays[keys[0]]


def _is_floating(values: Any) -> bool:
    """Whether an array or tensor holds floating point numbers."""
    return "float" in getattr(values.dtype, "name", str(values.dtype)) if hasattr(values, "dtype") else False


def _with_names(maps: Any, names: list[str] | None) -> MapSet:
    """Take an array for one map without a name, or for the maps of these images."""
    shape = _shape(maps)
    num_maps = 1 if names is None else len(names)
    is_single = names is None or (num_maps == 1 and map_size(shape) is not None)
    size = shape if is_single else shape[1:]
    if not is_single and (num_maps != shape[0] or map_size(size) is None):
        raise BadDataError(f"an array of shape {shape} is not {num_maps} maps, of as many paths")
    check_size(size)
    read_all = cache(lambda: _values(maps))  # a set in an archive is read at once, and kept
    return MapSet(names, lambda index: read_all() if is_single else read_all()[index])


def _values(array: Any) -> Any:
    """Return an array or a dense tensor of which single maps can be read."""
    if not isinstance(array, Tensor):
        return array.read() if hasattr(array, "archive") else array
    if array.layout != torch.strided or array.is_quantized:
        raise BadDataError(f"not a dense tensor of numbers, but {array.layout} of dtype {array.dtype}")
    return array.detach()


def _names_in(content: dict[str, Any]) -> list[str] | None:
    """Return the paths of the images that a file holds beside the maps, None if there are none."""
    keys = [key for key in PATH_NAMES if key in content]
    if not keys:
        return None
    if len(keys) > 1:
        raise NoMapsError(f"{_listed(keys)} may all be the paths of the images. Please store only `{PATH_NAMES[0]}`")
    names = content[keys[0]]
    if hasattr(names, "dtype") and not isinstance(names, Tensor):
        names = [name.decode() if isinstance(name, bytes) else name for name in _values(names).reshape(-1).tolist()]
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise NoMapsError(f"`{keys[0]}` is not a list of texts")
    return list(names)


def _names_beside(path: Path, shape: tuple[int, ...]) -> list[str]:
    """Read the paths of the images of several maps from the text file beside them."""
    beside = path.with_suffix(".txt")
    if not beside.is_file():
        raise BadDataError(
            f"an array of shape {shape} is no map (H, W); several maps hold the paths of their images, as `paths` in "
            f"the same file or one a line in {beside.name}"
        )
    return [line for line in beside.read_text(encoding="utf-8-sig").splitlines() if line]


def _listed(keys: list[str]) -> str:
    """Quote names, a handful at most."""
    return ", ".join(map(repr, keys[:5])) + (", ..." if keys[5:] else "")
