"""How large a file may be, and how a refusal is told."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aupimo_torchmetrics._errors import BadDataError

MAX_PIXELS = 2**27
"""Pixels of the largest file that is read, 11,585 x 11,585: more is taken for a mistake or an attack."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turn whatever reading a file raises into a BadDataError with the first line of the reason.

    Readers of broken files raise all kinds of errors, and warn of what the one who evaluates maps cannot mend. A
    missing package does not make a file a bad one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (BadDataError, ImportError):
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BadDataError(reason if " " in reason else f"{type(error).__name__} {reason}".rstrip()) from error


def check_size(shape: Sequence[int]) -> None:
    """Raise if there are more pixels than `MAX_PIXELS`."""
    if math.prod(shape) > MAX_PIXELS:
        raise BadDataError(f"too large: {' x '.join(map(str, shape))}, at most {MAX_PIXELS:,} pixels")


def plane_of(shape: Sequence[int]) -> tuple[int, ...] | None:
    """Height and width of an array (H, W), which may have more axes of length 1; None if it is none."""
    size = tuple(length for length in shape if length != 1) if len(shape) > 2 else tuple(shape)
    return size if len(size) == 2 and 0 not in size else None
