"""How the tests are run: profiles of hypothesis, and torchvision. Functions that tests share are in `helpers.py`."""

from __future__ import annotations

import pytest
import torchvision_operators  # noqa: F401  before anything imports torchvision
from hypothesis import settings

settings.register_profile("long", max_examples=3000, deadline=None)
settings.register_profile("short", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("short")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Skip the examples that a module lists in `__doctest_skip__`, as pytest-doctestplus and torchmetrics do."""
    if isinstance(item, pytest.DoctestItem):
        module = item.dtest.globs
        if item.name.removeprefix(f"{module.get('__name__')}.") in module.get("__doctest_skip__", ()):
            item.add_marker(pytest.mark.skip(reason="needs a package that is not installed"))


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make and log figures without drawing on them, which takes longer than all else in a small training."""
    monkeypatch.setattr("matplotlib.figure.Figure.draw", lambda *_: None)
