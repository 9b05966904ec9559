"""A few images of an epoch, spread evenly, without knowing how many there will be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from aupimo_torchmetrics.lightning._sources import LOWEST_SIZE, Pictures

__all__ = ["Gallery", "Picture", "picture_maker"]


class Picture(NamedTuple):
    """One image with its map, on the CPU."""

    image: Tensor
    """(C, H, W), resized to the size of the map."""
    anomaly_map: Tensor
    """(H, W)."""
    mask: Tensor | None
    """(H, W) bool."""


class Kept(NamedTuple):
    """A picture of a gallery."""

    image_index: int
    """Index of the image in the epoch, on this process."""
    position: int | None
    """Position among the images that the metric got on this process; None if it is not known."""
    picture: Picture


class Gallery:
    """Collects pictures of some images for a metric.

    Args:
        size: How many pictures to draw. At most twice as many are kept.
        indices: Indices in the epoch of the images to keep instead. None for anomalous images, spread evenly.

    """

    def __init__(self, size: int, indices: Sequence[int] | None) -> None:
        self.size = size
        self.indices = None if indices is None else set(indices)
        self.kept: list[Kept] = []
        self._num_candidates = 0
        self._stride = 1

    def offer(
        self,
        is_anomalous: Sequence[bool],
        make_picture: Callable[[int], Picture | None],
        first_index: int,
        first_position: int | None,
    ) -> None:
        """Keep some of the images of a batch.

        Args:
            is_anomalous: For each image of the batch, whether it is anomalous.
            make_picture: Makes the picture of the image at a place of the batch; None if it cannot be drawn.
            first_index: Index in the epoch of the first image.
            first_position: Position in the metric of the first image. None if the positions are not known.

        """
        for place, anomalous in enumerate(is_anomalous):
            if self._wants(first_index + place, anomalous) and (picture := make_picture(place)) is not None:
                position = None if first_position is None else first_position + place
                self.kept.append(Kept(first_index + place, position, picture))
            if self.indices is None and len(self.kept) > 2 * self.size:
                self.kept = self.kept[::2]  # from now on, keep only every other of the images to come, too
                self._stride *= 2

    def chosen(self) -> list[Kept]:
        """Return the pictures to draw."""
        if self.indices is not None or len(self.kept) <= self.size:
            return self.kept
        steps = np.linspace(0, len(self.kept) - 1, self.size).round().astype(int)
        return [self.kept[step] for step in steps]

    def _wants(self, index: int, is_anomalous: bool) -> bool:
        """Whether to keep the image of this index."""
        if self.indices is not None:
            return index in self.indices
        if not is_anomalous:
            return False
        self._num_candidates += 1
        return (self._num_candidates - 1) % self._stride == 0


def picture_maker(pictures: Pictures) -> Callable[[int], Picture | None]:
    """Return a function that makes each picture of a batch once; None for a map that cannot be drawn."""
    images, maps, masks = pictures
    size = maps.shape[-2:]
    made: dict[int, Picture | None] = {}

    def make(place: int) -> Picture | None:
        if place not in made:
            anomaly_map = maps[place].reshape(size).detach().cpu().clone()
            made[place] = None
            # NaN is possible with `validate_args=False`
            if min(size) >= LOWEST_SIZE and not bool(anomaly_map.isnan().any()):
                resized = interpolate(images[place][None].float(), size, mode="bilinear", antialias=True)[0]
                mask = None if masks is None else (masks[place].reshape(size) != 0).cpu()
                made[place] = Picture(resized.detach().cpu(), anomaly_map, mask)
        return made[place]

    return make
