"""How large a file may be, and how a refusal is told."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from aupimo_torchmetrics._errors import BadDataError

MAX_PIXELS = 2**27
"""Pixels of the largest file that is read, 11,585 x 11,585: more is taken for a mistake or an attack."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turn whatever reading a file raises into a BadDataError with the first line of the reason.

    Readers of broken files raise all kinds of errors, and warn of what the one who evaluates maps cannot mend.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadDataError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BadDataError(reason if " " in reason else f"{type(error).__name__} {reason}".rstrip()) from error


def check_size(shape: tuple[int, ...], limit: int | None = None) -> None:
    """Raise if there are more pixels than `limit`, by default `MAX_PIXELS`."""
    limit = MAX_PIXELS if limit is None else limit
    if math.prod(shape) > limit:
        raise BadDataError(f"too large: {' x '.join(str(length) for length in shape)}, at most {limit:,} pixels")
