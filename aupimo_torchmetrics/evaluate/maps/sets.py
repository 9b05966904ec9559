"""Files that hold one map or a whole set of them: `.npy`, `.npz`, and what `torch.save` wrote.

A set is an array (N, H, W) or (N, 1, H, W). The paths of its images stand in the same file, or one a line in a text
file beside it: the order of maps alone does not say to which image each belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files import MAX_TEXT, load_tensors, open_npy, open_npz, refusing
from aupimo_torchmetrics.evaluate.data.texts import read_text

__all__ = ["MAP_NAMES", "PATH_NAMES", "MapSet", "open_map_set", "paths_file"]

MAP_NAMES = ("asmaps", "anomaly_maps", "anomaly_map", "maps", "map")
"""Names of the maps in a file that holds other arrays too."""
PATH_NAMES = ("paths", "path", "image_paths", "image_path", "names", "image_names", "filenames", "files")
"""Names of the paths of the images in a file."""


class MapSet(NamedTuple):
    """The maps in a file, of which none is read yet."""

    names: list[str] | None
    """Path of each map's image; None if the file holds one map and no path."""
    read: Callable[[int], Any]
    """Returns an array or tensor of one map by its index."""


def open_map_set(path: Path) -> MapSet:
    """Open a file of maps.

    Args:
        path: `.npy`, `.npz`, or a file of `torch.save` with any other ending.

    Returns:
        One map without a name, or any number with the paths of their images.

    Raises:
        BadDataError: If it holds no maps, if it is not clear which of its arrays they are, or if it holds several
            without the paths of their images.
        ImportError: If it is a file of `torch.save` and the installed torch is older than 2.6.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from aupimo_torchmetrics.evaluate.maps.sets import open_map_set
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "maps.npz")
        ...     np.savez(file, maps=np.zeros((2, 4, 4)), paths=["test/good/000.png", "test/good/001.png"])
        ...     maps = open_map_set(file)
        ...     maps.names, maps.read(1).shape
        (['test/good/000.png', 'test/good/001.png'], (4, 4))

    """
    content = _content(path)
    with refusing():
        maps = _maps(content)
        names = _stored_names(content)
        num_maps = _num_maps(tuple(maps.shape))
        if names is None and num_maps == 1:
            return MapSet(None, lambda _: maps[...])
        if names is None:
            names = _names_beside(path, tuple(maps.shape))
        if len(names) != num_maps or not names:
            raise BadDataError(f"there are {num_maps} maps and {len(names)} paths of images")
        return MapSet(names, lambda index: maps[...] if num_maps == 1 else maps[index])


def paths_file(path: Path) -> Path:
    """Return the text file beside a file of maps in which the paths of their images may stand."""
    return path.with_suffix(".txt")


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
        raise BadDataError(f"a {type(content).__name__}, not a tensor, nor a dict with `asmaps` and `paths`")
    return {key: value for key, value in content.items() if isinstance(key, str)}


def _maps(content: dict[str, Any]) -> Any:
    """Find the one array of maps in a file."""
    arrays = [key for key, value in content.items() if len(getattr(value, "shape", ())) >= 2]
    keys = [key for key in arrays if key in MAP_NAMES] or arrays
    lists = [key for key, value in content.items() if key in MAP_NAMES and isinstance(value, list | tuple)]
    if lists:
        raise BadDataError(f"`{lists[0]}` is a list. Please store one array (N, H, W), or a file for each map")
    if not keys:
        raise BadDataError("no array of maps, as `asmaps` in a dict with `asmaps` and `paths`")
    if len(keys) > 1:
        raise BadDataError(
            f"{_listed(keys)} may all be the maps. Please store these alone, or name them `{MAP_NAMES[0]}`"
        )
    maps = content[keys[0]]
    if isinstance(maps, Tensor):
        is_dense = not maps.is_nested and maps.layout == torch.strided and not maps.is_quantized
        if not is_dense or maps.is_complex():
            raise BadDataError(f"{keys[0]!r} is not a dense tensor of real numbers")
    return maps


def _num_maps(shape: tuple[int, ...]) -> int:
    """Count the maps in an array (H, W), (N, H, W) or (N, 1, H, W), or of either with the channel at the end."""
    is_single = len(shape) == 2 or (len(shape) == 3 and shape[-1] == 1)
    is_set = len(shape) == 3 or (len(shape) == 4 and 1 in {shape[1], shape[-1]})
    if not is_single and not is_set:
        raise BadDataError(f"an array of shape {shape} is neither (H, W), (N, H, W) nor (N, 1, H, W)")
    return 1 if is_single else shape[0]


def _stored_names(content: dict[str, Any]) -> list[str] | None:
    """Return the paths of the images that a file holds beside the maps, None if there are none."""
    keys = [key for key in PATH_NAMES if key in content]
    if not keys:
        return None
    if len(keys) > 1:
        raise BadDataError(f"{_listed(keys)} may all be the paths of the images. Please store only `{PATH_NAMES[0]}`")
    names = content[keys[0]]
    if not isinstance(names, str | list | tuple):
        names = _texts(names[...]) if hasattr(names, "dtype") and not isinstance(names, Tensor) else None
    names = [names] if isinstance(names, str) else names
    if names is None or not all(isinstance(name, str) for name in names):
        raise BadDataError(f"`{keys[0]}` is not a list of texts")
    return list(names)


def _texts(array: NDArray[Any]) -> list[str] | None:
    """Turn an array of texts into a list, None if it is no such array."""
    if array.ndim > 1 or array.dtype.kind not in "US":
        return None
    names = array.reshape(-1).tolist()
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def _names_beside(path: Path, shape: tuple[int, ...]) -> list[str]:
    """Read the paths of the images of several maps from the text file beside them."""
    beside, num_maps = paths_file(path), shape[0]
    if not beside.is_file():
        if len(shape) == 3 and shape[-1] in {3, 4}:
            raise BadDataError(f"an array of shape {shape} looks like a picture in colours, not like scores")
        inside = "" if path.suffix.lower() == ".npy" else "as `paths` in the same file, or "
        raise BadDataError(
            f"{num_maps} maps without the paths of their images. Please store these {inside}one a line in "
            f"{beside.name} beside it"
        )
    if beside.stat().st_size > num_maps * 4 * (MAX_TEXT + 1):
        raise BadDataError(f"{beside.name} beside it is too large for {num_maps} paths")
    return [line for line in read_text(beside).splitlines() if line]


def _listed(keys: list[str]) -> str:
    """Quote names, a handful at most."""
    return ", ".join(map(repr, keys[:5])) + (", ..." if keys[5:] else "")
