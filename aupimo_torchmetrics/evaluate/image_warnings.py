"""Warnings of maps and masks that can be read, but change the scores of a category in a way that nobody meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.photographs import image_size
from aupimo_torchmetrics.evaluate.reading import LoadedPair, size_of

__all__ = ["ImageWarnings"]

# Of 100 million normally distributed scores less than 2 on average, and about 15 at most, become one in float32.
MAX_MERGED, MAX_MERGED_ON_AVERAGE = 32, 2
MOST = 0.5  # masks that all cover more of their images are doubtful


class ImageWarnings:
    """Collects what there is to warn of in the maps and masks of a category, as they are read."""

    def __init__(self) -> None:
        self._ranges: list[tuple[float, ...]] = []
        self._mask_shares: list[float] = []
        self._merged: list[str] = []
        self._sizes: dict[tuple[bool, bool], str] = {}

    def look_at(self, loaded: LoadedPair) -> None:
        """Look at one image."""
        image, stored, mask = loaded.pair.image, loaded.stored_map, loaded.mask
        self._ranges.append(tuple(float(end) for end in stored.float().aminmax()))
        if bool(mask.any()):
            self._mask_shares.append(int(mask.sum()) / int(loaded.is_counted.sum()))
        if _are_merged(stored):
            self._merged.append(loaded.pair.name)
        if image.path is not None:
            with suppress(BadDataError, OSError):  # the image itself is not scored
                is_of_image = sorted(image_size(image.path)) == sorted(size_of(mask))
                self._sizes.setdefault((bool(image.masks), is_of_image), image.name)

    def texts(self) -> Iterator[str]:
        """Yield the warnings."""
        if len(self._ranges) > 1 and len(set(self._ranges)) == 1 and self._ranges[0][0] < self._ranges[0][1]:
            low, high = self._ranges[0]
            yield (
                f"All {len(self._ranges)} maps reach exactly from {low:g} to {high:g}: if each was scaled by itself, "
                "no threshold means the same in two of them. Please save them unscaled, or all scaled alike."
            )
        if min(self._mask_shares, default=0) > MOST:
            yield "Each mask that is not empty covers more than half of its image: if 0 is the defect, invert them."
        if self._merged:
            yield (
                f"{len(self._merged)} maps, such as {self._merged[0]}, hold scores that float32, in which scores are "
                "kept, cannot tell apart: they count as tied. Please subtract a large offset, or save scores before a "
                "sigmoid."
            )
        if {(True, False), (False, True)} <= {*self._sizes}:
            yield (
                f"Masks, such as that of {self._sizes[True, False]}, are of another size than their images, in which "
                "maps of normal images are scored. Please resize the masks without interpolation; or save all maps in "
                "the size of the masks, and set `resize=False`."
            )


def _are_merged(anomaly_map: Tensor) -> bool:
    """Whether rounding to float32 makes many different scores equal."""
    if bool((anomaly_map.float() == anomaly_map).all()):
        return False
    _, counts = np.unique(np.unique(anomaly_map.numpy()).astype(np.float32), return_counts=True)
    return bool(counts.max() > MAX_MERGED or counts.mean() > MAX_MERGED_ON_AVERAGE)
