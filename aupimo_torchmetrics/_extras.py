"""Optional packages: one answer to what is missing and how to install it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, TypeVar

__all__ = ["progress", "require"]

_Item = TypeVar("_Item")

_PACKAGES = {"PIL": "pillow", "skimage": "scikit-image"}
"""Packages whose names are not those of their modules."""


def require(*modules: str, extra: str, needed_by: str) -> None:
    """Raise with the remedy unless all modules are installed; none of them is imported.

    Args:
        modules: Names of modules.
        extra: The extra of this package that installs them, or several with commas between.
        needed_by: What needs them, the beginning of the message.

    Raises:
        ModuleNotFoundError: If a module is not installed.

    """
    missing = [_PACKAGES.get(module, module) for module in modules if not _is_installed(module)]
    if missing:
        raise ModuleNotFoundError(
            f"{needed_by} expects {', '.join(f'`{package}`' for package in missing)} to be installed. "
            f'Please install with `pip install "aupimo-torchmetrics[{extra}]"`'
        )


def _is_installed(module: str) -> bool:
    """Whether a module can be found."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def progress(
    items: Collection[_Item], activity: str, unit: str, *, quiet: bool
) -> AbstractContextManager[Iterable[_Item]]:
    """Return items, under a bar if there are several, standard error is a terminal and tqdm is installed."""
    try:
        from tqdm import tqdm  # noqa: PLC0415
    except ModuleNotFoundError:
        return nullcontext(items)
    bar: Any = tqdm(items, activity, unit=unit, leave=False, disable=quiet or len(items) == 1 or None)
    return bar  # type: ignore[no-any-return]
