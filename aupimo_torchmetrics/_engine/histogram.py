"""Histograms of scores that need no range: their bins are the highest bits of the numbers.

The bits of a float32 number, read as an integer with a sign, are in the order of the numbers; -0.0 and 0.0 are one. The
highest bits of that integer are the number of a bin. With 2**18 bins, 512 lie between 1 and 2, and as many between 2
and 4; a few huge scores move no other score to another bin.

Conventions: B bins, a power of two, in the order of their scores.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MAGNITUDE = 2**31 - 1
"""The bits of a float32 number without its sign."""
_INFINITY = 0x7F800000
"""The bits of the largest float32 number."""


def bins_of(scores: Tensor, num_bins: int) -> Tensor:
    """Give the number of the bin of each score: int32 of the shape of the scores, which are float32 or narrower."""
    bits = scores.float().view(torch.int32)
    sign = bits >> 31
    ordered = (bits & _MAGNITUDE).bitwise_xor_(sign).sub_(sign)
    return ordered.bitwise_right_shift_(_num_dropped_bits(num_bins)).add_(num_bins // 2)


def lower_edges(bins: Tensor, num_bins: int) -> Tensor:
    """Give the lowest score in each of some bins (m,) int64: (m,) float32."""
    ordered = (bins - num_bins // 2) << _num_dropped_bits(num_bins)
    edges = ordered.abs().clamp(max=_INFINITY).to(torch.int32).view(torch.float32)
    return torch.where(ordered < 0, -edges, edges)


def _num_dropped_bits(num_bins: int) -> int:
    """How many of the 32 bits of a score do not matter."""
    return 32 - int(math.log2(num_bins))
