"""Warnings of maps and masks that can be read, but change the scores of a category in a way that nobody meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.photographs import image_size
from aupimo_torchmetrics.evaluate.reading import LoadedPair, size_of

__all__ = ["ImageWarnings"]

MAX_MERGED = 32  # different scores that become one in float32; of ten million normally distributed ones about ten do
MAX_SHARE_MERGED = 1e-3  # the same as a share of the pixels, for large maps
MAX_FEW = 2**22  # of at most so many different scores half or more remain different, unless an offset is large
MOST = 0.5  # masks that all cover more of their images are doubtful


class ImageWarnings:
    """Collects what there is to warn of in the maps and masks of a category, as they are read.

    Args:
        resize: Whether maps are resized to the size of their masks, and those of normal images to that of their image.

    """

    def __init__(self, *, resize: bool) -> None:
        self._resize = resize
        self._ranges: list[tuple[float, float]] = []
        self._mask_shares: dict[str, float] = {}
        self._merged: dict[str, tuple[int, int]] = {}
        self._other_sizes: list[str] = []
        self._has_size_of_image = False

    def look_at(self, loaded: LoadedPair) -> None:
        """Look at one image."""
        image, stored, mask = loaded.pair.image, loaded.stored_map, loaded.mask
        low, high = stored.float().aminmax()
        self._ranges.append((float(low), float(high)))
        if bool(mask.any()):
            num_counting = mask.numel() if loaded.ignored is None else int((~loaded.ignored).sum())
            self._mask_shares[image.name] = int(mask.sum()) / num_counting
        if (numbers := _merged(stored)) is not None:
            self._merged[loaded.pair.name] = numbers
        if self._resize and image.path is not None and image.masks:
            with suppress(BadDataError, OSError):  # the image itself is not scored
                size = image_size(image.path)
                if sorted(size) != sorted(size_of(mask)):
                    self._other_sizes.append(f"{image.name} ({size}, its mask {size_of(mask)})")
        elif self._resize and image.path is not None:
            self._has_size_of_image = True

    def texts(self) -> Iterator[str]:
        """Yield the warnings."""
        if len(self._ranges) > 1 and len(set(self._ranges)) == 1 and self._ranges[0][0] < self._ranges[0][1]:
            low, high = self._ranges[0]
            yield (
                f"All {len(self._ranges)} maps reach exactly from {low:g} to {high:g}: if each was scaled by its own "
                "lowest and highest score, no threshold means the same in two of them, and they have to be saved "
                "unscaled, or all scaled alike."
            )
        if self._mask_shares and min(self._mask_shares.values()) > MOST:
            name = min(self._mask_shares, key=lambda name: self._mask_shares[name])
            yield (
                f"Each of the masks that are not empty ({len(self._mask_shares)}) covers more than half of its image, "
                f"at least {self._mask_shares[name]:.0%} ({name}): if defects are 0 in them, they have to be inverted."
            )
        if self._merged:
            name = min(self._merged, key=lambda name: self._merged[name][1])
            before, after = self._merged[name]
            maps = "1 map holds" if len(self._merged) == 1 else f"{len(self._merged)} maps hold"
            yield (
                f"{maps} scores that float32, in which scores are kept, cannot tell apart: {before:,} different ones "
                f"become {after:,} in {name}, and count as tied. Please subtract a large offset, save scores before a "
                "sigmoid, or save another function that keeps their order, the same for all maps."
            )
        if self._other_sizes and self._has_size_of_image:
            yield (
                f"{len(self._other_sizes)} masks are of another size than their images, such as "
                f"{self._other_sizes[0]}. Their maps are scored in the size of the mask, maps of normal images in that "
                "of the image. Please resize the masks to their images, without interpolation; or save maps in the "
                "size of the masks, and set `resize=False`."
            )


def _merged(anomaly_map: Tensor) -> tuple[int, int] | None:
    """Numbers of different scores before and after rounding to float32, if it makes many of them equal."""
    if anomaly_map.dtype != torch.float64 or bool((anomaly_map.float() == anomaly_map).all()):
        return None
    before = np.unique(anomaly_map.numpy())
    after, counts = np.unique(before.astype(np.float32), return_counts=True)
    is_large_tie = counts.max() > max(MAX_MERGED, MAX_SHARE_MERGED * anomaly_map.numel())
    is_coarse = len(before) <= MAX_FEW and len(before) > 2 * len(after)
    return (len(before), len(after)) if is_large_tie or is_coarse else None
