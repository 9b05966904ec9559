"""The progress bar of a comparison."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["progress"]


def progress(
    names: Collection[str], activity: str, unit: str = "category", *, quiet: bool
) -> AbstractContextManager[Iterable[str]]:
    """The names, under a bar if there are several, standard error is a terminal and tqdm is installed."""
    try:
        from tqdm import tqdm  # noqa: PLC0415
    except ModuleNotFoundError:
        return nullcontext(names)
    is_hidden = quiet or len(names) == 1 or not sys.stderr.isatty()
    bar: Any = tqdm(names, desc=activity, unit=unit, leave=False, disable=is_hidden)
    return bar  # type: ignore[no-any-return]
