"""A few images of an epoch, spread evenly, without knowing how many there will be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from aupimo_torchmetrics.metrics import Update

LOWEST_SIZE = 2
"""Pixels that a map must have in each direction to be drawn with an outline."""


class Picture(NamedTuple):
    """One image with its map, on the CPU."""

    position: int | None
    """Position among the images that the metric has kept on this process."""
    image_id: int | str | None
    """None if it has none."""
    image: Tensor
    """(C, H, W), resized to the size of the map."""
    anomaly_map: Tensor
    """(H, W)."""
    mask: Tensor
    """(H, W) bool."""


Shown: TypeAlias = tuple[Picture, int]
"""A picture and the index of its image in the result."""


class Gallery:
    """Collects pictures of some images for a metric.

    Args:
        size: How many pictures to draw. At most twice as many are kept.
        indices: Indices in the epoch of the images to keep instead. None for anomalous images, spread evenly.

    """

    def __init__(self, size: int, indices: Sequence[int] | None) -> None:
        self.size = size
        self.indices = None if indices is None else set(indices)
        self.kept: list[Picture] = []
        self._num_candidates = 0
        self._stride = 1

    def offer(self, index: int, is_anomalous: bool, make: Callable[[], Picture | None]) -> None:
        """Keep an image, or do not; `make` makes its picture, or None if it cannot be drawn."""
        is_next = is_anomalous and self._num_candidates % self._stride == 0
        self._num_candidates += is_anomalous
        if (is_next if self.indices is None else index in self.indices) and (picture := make()) is not None:
            self.kept.append(picture)
        if self.indices is None and len(self.kept) > 2 * self.size:
            self.kept = self.kept[::2]  # from now on, keep only every other of the images to come, too
            self._stride *= 2

    def chosen(self) -> list[Picture]:
        """Return the pictures to draw."""
        if self.indices is not None or len(self.kept) <= self.size:
            return self.kept
        steps = np.linspace(0, len(self.kept) - 1, self.size).round().astype(int)
        return [self.kept[step] for step in steps]


def make_picture(update: Update, place: int, image: Tensor | None) -> Picture | None:
    """Make the picture of the image at a place of an update; None if it cannot be drawn."""
    anomaly_map = torch.as_tensor(update.preds[place]).detach()
    size = anomaly_map.shape[-2:]
    # NaN is possible with `validate_args=False`
    if image is None or min(size) < LOWEST_SIZE or bool(anomaly_map.isnan().any()):
        return None
    image = image.detach().reshape(1, -1, *image.shape[-2:]).float()
    return Picture(
        update.indices[place],
        None if update.image_ids is None else update.image_ids[place],
        interpolate(image, size, mode="bilinear", antialias=True)[0].cpu(),
        anomaly_map.reshape(size).cpu().clone(),
        (torch.as_tensor(update.target[place]).reshape(size) == 1).cpu(),
    )
