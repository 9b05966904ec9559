"""Scores that are equal but for rounding: one rule for every rank, order and choice.

Two programs that compute the same score may differ in its last bits (0.9999999999999999 and 1.0). Such scores share a
rank. Rounding the scores to some digits would not do: two of them may lie on both sides of a border. So the scores are
sorted, and a new group begins only where the gap to the score below is large enough.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

EQUAL_WITHIN = 1e-12
"""Scores that differ by less are equal: far above the rounding of float64 (1e-16), far below any difference of scores
that means something (one pixel of ten billion)."""


def merge_equal(values: Scores, axis: int = -1) -> Scores:
    """Replace values that are equal but for rounding by the smallest of them.

    Args:
        values: Array of any shape without NaN.
        axis: Values along this axis are compared with each other.

    Returns:
        Array of the same shape, in which two values along the axis are either the same float or clearly different.

    """
    order = np.argsort(values, axis=axis, kind="stable")
    ascending = np.take_along_axis(values, order, axis)
    begins_group = np.diff(ascending, axis=axis, prepend=-np.inf) >= EQUAL_WITHIN
    smallest = np.maximum.accumulate(np.where(begins_group, ascending, -np.inf), axis=axis)
    merged = np.empty_like(smallest)
    np.put_along_axis(merged, order, smallest, axis)
    return merged


def best_first(values: Mapping[str, float]) -> list[str]:
    """Names in descending order of their values; names of equal values stay in their order."""
    names = list(values)
    return [names[place] for place in np.argsort(-merge_equal(np.array(list(values.values()))), kind="stable")]


def is_at_most(values: Scores | float, limit: Scores | float) -> NDArray[np.bool_]:
    """Whether each value is below its limit, or equal to it but for rounding."""
    return np.asarray(values < limit + EQUAL_WITHIN)
