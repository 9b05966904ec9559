"""Files that hold one map or a whole set of them: `.npy`, `.npz`, and what `torch.save` wrote.

A map is an array (H, W), or one with axes of length 1 beside these. Several maps are a set if the file says which image
each belongs to, for the order of maps does not: an array (N, H, W) or (N, 1, H, W) with the paths of its images, or a
dictionary `{path: map}`.

Of a dictionary with other arrays, the maps are the only array that is neither called a mask (`MASK_NAMES`) nor a weight
of a model, which has a dot in its name. Of several, these are preferred, one after the other: what is called so
(`MAP_NAMES`), what has the shape of a map, and what is floating.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.arrays import ArchivedArray, load_tensors, open_npy, open_npz
from aupimo_torchmetrics._files.limits import check_size, plane_of, refusing
from aupimo_torchmetrics.evaluate.data.folders import IMAGE_SUFFIXES

__all__ = ["MAP_NAMES", "MASK_NAMES", "PATH_NAMES", "StoredMap", "open_set"]

StoredMap = tuple[str | None, Callable[[], Any]]
"""Path of a map's image, None if it is not in the file; and what reads an array or a tensor."""

MAP_NAMES = ("asmaps", "anomaly_maps", "anomaly_map", "maps", "map")
"""Names of the maps in a file that holds other arrays too."""
MASK_NAMES = ("mask", "masks", "gt", "gt_mask", "gt_masks", "ground_truth", "label", "labels", "target", "pred_mask")
"""Names of what is never a map, in lower case."""
PATH_NAMES = ("paths", "path", "image_paths", "image_path", "names", "image_names", "filenames", "files")
"""Names of the paths of the images in a file, of which the first counts."""
_PATH_SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".npz", ".pt", ".pth")
"""How names end that are paths; names with a folder are paths, too."""


def open_set(path: Path) -> list[StoredMap]:
    """Open a file of maps, of which none is read yet.

    Args:
        path: `.npy`, `.npz`, or a file of `torch.save` with any other ending.

    Returns:
        One map, or any number with the paths of their images.

    Raises:
        BadDataError: If it cannot be read, if it is not clear which of its arrays are the maps, or if it holds several
            maps without the paths of their images.
        ImportError: If it is a file of `torch.save` and the installed torch is older than 2.6.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from aupimo_torchmetrics.evaluate.maps.sets import open_set
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "maps.npz")
        ...     np.savez(file, **{"test/good/000.png": np.zeros((4, 4)), "test/good/001.png": np.zeros((4, 5))})
        ...     [(name, read().shape) for name, read in open_set(file)]
        [('test/good/000.png', (4, 4)), ('test/good/001.png', (4, 5))]

    """
    with refusing():
        content = _content(path)
        by_path = {key: value for key, value in content.items() if _is_path(key) and len(_shape(value)) >= 2}
        if by_path:
            for each in by_path.values():
                check_size(each.shape)
            return [(name, partial(_values, each)) for name, each in by_path.items()]
        names = _names(content)
        return _with_names(_find_maps(content, is_set=names is not None), names)


def _content(path: Path) -> dict[str, Any]:
    """Open whatever is in a file, by name; what has no name is called `maps`."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return dict(open_npz(path))
    content = open_npy(path) if suffix == ".npy" else load_tensors(path, mmap=True)
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {"maps": content}


def _shape(value: Any) -> tuple[int, ...]:
    """Shape of an array, and of all else that of a number."""
    return tuple(getattr(value, "shape", ()))


def _values(array: Any) -> Any:
    """Return an array or tensor of which single maps can be read."""
    return array.read() if isinstance(array, ArchivedArray) else array


def _is_path(name: str) -> bool:
    """Whether the name of an array is the path of an image or of a map."""
    return "/" in name or "\\" in name or name.lower().endswith(_PATH_SUFFIXES)


def _names(content: dict[str, Any]) -> list[str] | None:
    """Return the paths of the images that a file holds beside the maps, None if there are none."""
    key = next((key for key in PATH_NAMES if key in content), None)
    if key is None:
        return None
    names = np.atleast_1d(_values(content[key]))
    if names.size and names.dtype.kind not in "US":
        raise BadDataError(f"`{key}` is not a list of texts")
    return [str(name) for name in names.astype(str).ravel()]


def _find_maps(content: dict[str, Any], *, is_set: bool) -> Any:
    """Find the one array of maps in a file."""
    ranks = {
        key: (
            key in MAP_NAMES,
            is_set or (plane_of(each.shape) is not None and {*each.shape} != {1}),
            "float" in getattr(each.dtype, "name", str(each.dtype)),
        )
        for key, each in content.items()
        if len(_shape(each)) >= 2 and key.lower() not in MASK_NAMES and "." not in key
    }
    best = [key for key, rank in ranks.items() if rank == max(ranks.values())]
    if len(best) != 1:
        found = ", ".join(f"{key} {_shape(each) or type(each).__name__}" for key, each in [*content.items()][:5])
        raise BadDataError(f"holds {found}: please call the maps `{MAP_NAMES[0]}`, or each by the path of its image")
    return content[best[0]]


def _with_names(maps: Any, names: list[str] | None) -> list[StoredMap]:
    """Take an array for one map, or for those of as many images."""
    shape = _shape(maps)
    if plane_of(shape) and (names is None or len(names) == 1):
        check_size(shape)
        return [(names[0] if names else None, partial(_values, maps))]
    if not names or len(names) != shape[0] or plane_of(shape[1:]) is None:
        raise BadDataError(f"an array of shape {shape} is no map (H, W), nor a set with {len(names or ())} `paths`")
    check_size(shape[1:])
    read_all = cache(partial(_values, maps))  # a set in an archive is read at once, and kept
    return [(name, partial(lambda index: read_all()[index], index)) for index, name in enumerate(names)]
