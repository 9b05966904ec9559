"""The progress bar of a comparison."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

__all__ = ["progress"]


_Item = TypeVar("_Item")


def progress(
    items: Collection[_Item], activity: str, unit: str = "category", *, quiet: bool
) -> AbstractContextManager[Iterable[_Item]]:
    """The items, under a bar if there are several, standard error is a terminal and tqdm is installed."""
    try:
        from tqdm import tqdm  # noqa: PLC0415
    except ModuleNotFoundError:
        return nullcontext(items)
    is_hidden = quiet or len(items) == 1 or not sys.stderr.isatty()
    bar: Any = tqdm(items, desc=activity, unit=unit, leave=False, disable=is_hidden)
    return bar  # type: ignore[no-any-return]
