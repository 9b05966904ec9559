"""Histograms of scores that need no range: their bins are the highest bits of the numbers.

The bits of a float32 number, read as an integer with a sign, are in the order of the numbers; -0.0 and 0.0 are one. The
highest bits of that integer are the number of a bin. With 2**18 bins, 512 lie between 1 and 2, and as many between 2
and 4; a few huge scores move no other score to another bin.

Conventions: B bins, a power of two, in the order of their scores.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK_SIZE = 2**18
"""Scores that are put into bins at once: the arrays of one step fit into the cache."""
_MAGNITUDE = 2**31 - 1
"""The bits of a float32 number without its sign."""


class Counter:
    """Counts scores by bins, part by part; it keeps the memory for one chunk, which takes long to get anew.

    Attributes:
        counts: (B,) int64, number of scores in each bin.

    """

    def __init__(self, counts: Tensor) -> None:
        """Begin with a copy of counts (B,) int64."""
        self.counts = counts.clone()
        self._signs, self._ordered = np.empty((2, _CHUNK_SIZE), dtype=np.int32)
        self._bins = np.empty(_CHUNK_SIZE, dtype=np.intp)

    def add(self, scores: Tensor) -> None:
        """Add scores (n,) of any floating dtype but float64."""
        num_bins = len(self.counts)
        if scores.device.type != "cpu":
            found = torch.bincount(bins_of(scores, num_bins), minlength=num_bins)
            self.counts += found.to(self.counts.device)
            return
        for chunk in torch.split(scores, _CHUNK_SIZE):  # NumPy is several times as fast
            found = torch.from_numpy(np.bincount(self._bins_of(chunk), minlength=num_bins))
            self.counts += found.to(self.counts.device)

    def _bins_of(self, chunk: Tensor) -> NDArray[np.intp]:
        """Do as `bins_of` does, without new memory."""
        size, num_bins = len(chunk), len(self.counts)
        signs, ordered, bins = self._signs[:size], self._ordered[:size], self._bins[:size]
        bits = chunk.float().view(torch.int32).numpy()
        np.right_shift(bits, 31, out=signs)
        np.bitwise_and(bits, _MAGNITUDE, out=ordered)
        ordered ^= signs
        ordered -= signs
        ordered >>= _num_dropped_bits(num_bins)
        ordered += num_bins // 2
        bins[...] = ordered
        return bins


def sum_shares(scores: Tensor, shares: Tensor, num_bins: int) -> Tensor:
    """Sum the shares (n,) float64, on the CPU, of the scores (n,) in each bin: (B,) float64, on the CPU."""
    return torch.bincount(bins_of(scores, num_bins).cpu(), shares, minlength=num_bins)


def bins_of(scores: Tensor, num_bins: int) -> Tensor:
    """Give the number of the bin of each score: int32 of the shape of the scores, which are float32 or narrower."""
    bits = scores.float().view(torch.int32)
    sign = bits >> 31
    ordered = (bits & _MAGNITUDE).bitwise_xor_(sign).sub_(sign)
    return ordered.bitwise_right_shift_(_num_dropped_bits(num_bins)).add_(num_bins // 2)


def lower_edges(bins: Tensor, num_bins: int) -> Tensor:
    """Give the lowest score in each of some bins (m,) int64: (m,) float32."""
    ordered = (bins - num_bins // 2) << _num_dropped_bits(num_bins)
    infinity = int(torch.tensor(math.inf).view(torch.int32))
    edges = ordered.abs().clamp(max=infinity).to(torch.int32).view(torch.float32)
    return torch.where(ordered < 0, -edges, edges)


def _num_dropped_bits(num_bins: int) -> int:
    """How many of the 32 bits of a score do not matter."""
    return 32 - (num_bins.bit_length() - 1)
