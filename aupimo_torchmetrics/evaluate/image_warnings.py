"""Warnings of maps and masks that can be read, but change the scores of a category in a way that nobody meant."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.maps.open import image_size
from aupimo_torchmetrics.evaluate.reading import LoadedPair, size_of

__all__ = ["ImageWarnings"]

MAX_MERGED = 32
"""Different scores that may become one in float32. Of ten million normally distributed scores about ten do."""
MAX_SHARE_MERGED = 1e-3
"""The same as a share of the pixels, for large maps."""
MAX_FEW = 2**22
"""Of at most so many different scores half or more remain different, unless an offset is large."""


class _Rounded(NamedTuple):
    """What rounding to float32 does to a map."""

    num_before: int
    """Number of different scores."""
    num_after: int


class ImageWarnings:
    """Collects what there is to warn of, as images are read.

    Args:
        resize: Whether maps are resized to the size of their masks, and those of normal images to that of their image.

    """

    def __init__(self, *, resize: bool) -> None:
        self._resize = resize
        self._rounded: dict[str, _Rounded] = {}
        self._other_sizes: list[str] = []
        self._has_size_of_image = False

    def look_at(self, loaded: LoadedPair) -> None:
        """Look at one image."""
        rounded = _merged(loaded.anomaly_map)
        if rounded is not None:
            self._rounded[loaded.pair.name] = rounded
        image = loaded.pair.image
        if not self._resize or image.path is None:
            return
        if not image.masks:
            self._has_size_of_image = True
            return
        try:
            size = image_size(image.path)
        except (BadDataError, OSError):  # the image itself is not scored
            return
        if sorted(size) != sorted(size_of(loaded.mask)):
            self._other_sizes.append(f"{image.name} ({size}, its mask {size_of(loaded.mask)})")

    def texts(self) -> list[str]:
        """Return the warnings."""
        texts = []
        if self._rounded:
            name = min(self._rounded, key=lambda name: self._rounded[name].num_after)
            before, after = self._rounded[name]
            number = len(self._rounded)
            texts.append(
                f"{'one map holds' if number == 1 else f'{number} maps hold'} scores that float32, in which scores are "
                f"kept, cannot tell apart: {before:,} different ones become {after:,} in {name}, and count as tied. "
                "Please subtract a large offset, save scores before a sigmoid, or save another function that keeps "
                "their order, the same for all maps."
            )
        if self._other_sizes and self._has_size_of_image:
            texts.append(
                f"{len(self._other_sizes)} masks are of another size than their images, such as "
                f"{self._other_sizes[0]}. Their maps are scored in the size of the mask, maps of normal images in that "
                "of the image. Please resize the masks to their images, without interpolation; or save maps in the "
                "size of the masks, and set `resize=False`."
            )
        return texts


def _merged(anomaly_map: Tensor) -> _Rounded | None:
    """What rounding to float32 does to a map, if it makes many different scores equal."""
    if anomaly_map.dtype != torch.float64 or bool((anomaly_map.float() == anomaly_map).all()):
        return None
    before = np.unique(anomaly_map.numpy())
    after, counts = np.unique(before.astype(np.float32), return_counts=True)
    is_large_tie = counts.max() > max(MAX_MERGED, MAX_SHARE_MERGED * anomaly_map.numel())
    is_coarse = len(before) <= MAX_FEW and len(before) > 2 * len(after)
    return _Rounded(len(before), len(after)) if is_large_tie or is_coarse else None
