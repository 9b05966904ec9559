"""How doctests are run: an example is skipped if it needs a package that is not installed."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Skip the examples that a module lists in `__doctest_skip__`, as pytest-doctestplus and torchmetrics do."""
    if isinstance(item, pytest.DoctestItem):
        module = item.dtest.globs
        if item.name.removeprefix(f"{module.get('__name__')}.") in module.get("__doctest_skip__", ()):
            item.add_marker(pytest.mark.skip(reason="needs a package that is not installed"))
