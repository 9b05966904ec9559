"""How the tests are run: profiles of hypothesis, torchvision, and commands. Other helpers are in `helpers.py`."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import torchvision_operators  # noqa: F401  before anything imports torchvision
from hypothesis import settings
from matplotlib.figure import Figure

settings.register_profile("long", max_examples=3000, deadline=None)
settings.register_profile("short", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("short")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Skip the examples that a module lists in `__doctest_skip__`, as pytest-doctestplus and torchmetrics do."""
    if isinstance(item, pytest.DoctestItem):
        module = item.dtest.globs
        if item.name.removeprefix(f"{module.get('__name__')}.") in module.get("__doctest_skip__", ()):
            item.add_marker(pytest.mark.skip(reason="needs a package that is not installed"))


def leave_blank(monkeypatch: pytest.MonkeyPatch, *functions: str) -> None:
    """Let functions of the package return an empty figure."""
    for function in functions:
        monkeypatch.setattr(f"aupimo_torchmetrics.{function}", lambda *_: Figure((1, 1)))


@pytest.fixture
def only_heat_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the callback draw nothing but heat maps: figures take longer than all else in a small training."""
    leave_blank(monkeypatch, "lightning._loggers.draw_distribution", "lightning._loggers.draw_curves")


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch, only_heat_maps: None) -> None:  # noqa: ARG001
    """Let the callback log figures on which nothing is drawn."""
    leave_blank(monkeypatch, "lightning._loggers.draw_heatmaps")


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands write pictures on which nothing is drawn, but for heat maps."""
    leave_blank(monkeypatch, "plotting._figures.drawn_off_screen")


@pytest.fixture
def aupimo(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command; return its exit code and what it printed on either stream."""
    from aupimo_torchmetrics.cli import main  # noqa: PLC0415  tests of other parts do without it

    def run(command: str, *more: object) -> tuple[Any, str, str]:
        try:
            code = main([*shlex.split(command), *map(str, more)])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def printed(aupimo: Any) -> Any:
    """Run a command, which must go well and say nothing on standard error; return what it prints."""

    def run(command: str, *more: object) -> str:
        code, out, err = aupimo(command, *more)
        assert (code, err) == (0, "")
        return out

    return run
