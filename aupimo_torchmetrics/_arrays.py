"""Maps and masks as NumPy arrays: what the functions take beside tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._engine.checks import Maps

__all__ = ["Array", "ArrayMaps", "as_tensors", "is_numpy"]

Array: TypeAlias = NDArray[Any]
ArrayMaps: TypeAlias = Array | Sequence[Array]
"""Maps or masks as NumPy arrays, in the forms that tensors may have."""


def is_numpy(maps: Maps | ArrayMaps) -> bool:
    """Whether these are NumPy arrays."""
    return isinstance(maps, np.ndarray) or (
        isinstance(maps, list | tuple) and len(maps) > 0 and isinstance(maps[0], np.ndarray)
    )


def as_tensors(maps: Maps | ArrayMaps) -> Maps:
    """Turn NumPy arrays into tensors that share their memory if possible; return anything else as it is.

    Raises:
        TypeError: If an array does not hold numbers.

    """
    if isinstance(maps, np.ndarray):
        return _as_tensor(maps)
    if isinstance(maps, list | tuple):
        return [_as_tensor(each) if isinstance(each, np.ndarray) else each for each in maps]
    return cast("Maps", maps)


def _as_tensor(array: Array) -> Tensor:
    """Turn an array of any byte order and layout into a tensor."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    try:
        return torch.from_numpy(np.require(native, requirements=["C", "W"]))
    except TypeError as error:
        raise TypeError(f"Expected maps and masks of numbers, but got an array of dtype {array.dtype}.") from error
