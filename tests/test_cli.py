"""Commands answer from the shell: help, options, exit codes, and errors in one line."""

import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from aupimo_torchmetrics import AUPIMO, __version__
from aupimo_torchmetrics.cli import EXIT_CODES
from aupimo_torchmetrics.compare import Comparison, compare_paths
from aupimo_torchmetrics.demo import run_demo
from aupimo_torchmetrics.evaluate import Evaluation, evaluate

WRONG = {
    "": "aupimo: the following arguments are required: COMMAND",
    "demos": "invalid choice: 'demos'",
    "demo --texture sand": "aupimo demo: argument --texture: invalid choice: 'sand'",
    "demo --epochs 1.5": "aupimo demo: argument --epochs: invalid int value: '1.5'",
    "demo --fast": "unrecognized arguments: --fast",
    "evaluate --fpr-bounds 1e-3": "argument --fpr-bounds: expected 2 arguments",
    "evaluate --data": "argument --data: expected one argument",
    "compare": "aupimo compare: the following arguments are required: PATH",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_is_one_line_and_code_2(arguments: str, aupimo: Any) -> None:
    """A command that is not understood ends with code 2 and one line that names what is wrong."""
    code, out, err = aupimo(arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert WRONG[arguments] in err


TOLD = {
    "`maps`, `data`, `num_thresholds`": "`MAPS`, `--data`, `--num-thresholds`",
    "`num_thresholds=None`, `num_thresholds=300000`": "`--num-thresholds None`, `--num-thresholds 300000`",
    "`fpr_bounds=(1e-4, 1e-3)`": "`--fpr-bounds 1e-4 1e-3`",
    '`normal_folder="it\'s ok"`': "`--normal-folder 'it'\"'\"'s ok'`",
    "`skip_bad`, `skip_bad=True`": "`--skip-bad`, `--skip-bad`",
    "`resize`, `resize=False`": "`--no-resize`, `--no-resize`",
    "`picture_format`, `write_table`, `by`": "`--format`, `--write-table`, `--by`",
    "`skip_bad=False`, `resize=True`": "`skip_bad=False`, `resize=True`",
    "`asmaps`, `root`, `has_folders`, data": "`asmaps`, `root`, `has_folders`, data",
}


def test_texts_of_the_library_are_told_in_options(tmp_path: Path, aupimo: Any) -> None:
    """Parameters in backticks, here in the name of a folder, are named as options."""
    for text, expected in TOLD.items():
        told = f"aupimo evaluate: Expected `--data` to be a folder, but there is no folder {expected}.\n"
        assert aupimo(f"evaluate {tmp_path} --data {shlex.quote(text)}") == (2, "", told)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of two images, with maps and a mask."""
    np.save(tmp_path / "a.npy", np.arange(4.0).reshape(2, 2))
    shutil.copy(tmp_path / "a.npy", tmp_path / "b.npy")
    np.save(tmp_path / "mask.npy", np.eye(2))
    (tmp_path / "t.csv").write_text("image,mask,map\na,,a.npy\nb,mask.npy,b.npy\n", encoding="utf-8")
    return tmp_path / "t.csv"


TROUBLES = [
    (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    (ImportError("torch 2.6"), "torch 2.6"),
    (MemoryError(), "MemoryError"),
    (RuntimeError("CUDA out of memory.\nTried"), "CUDA out of memory."),
    (KeyboardInterrupt(), "stopped"),
    (ValueError("too many values to unpack"), None),
    (KeyError("bottle"), None),
    (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), None),
]


@pytest.mark.parametrize(("error", "line"), TROUBLES)
def test_a_bug_is_a_traceback_and_trouble_of_the_machine_is_not(
    error: BaseException, line: str | None, table: Path, monkeypatch: pytest.MonkeyPatch, aupimo: Any
) -> None:
    """What is lacking on the machine is one line and code 1; any other error inside is not said to be the command."""
    monkeypatch.setattr(AUPIMO, "update", Mock(side_effect=error))
    if line is None:
        with pytest.raises(type(error)) as raised:
            aupimo(f"evaluate --table {table}")
        assert raised.value is error
    else:
        assert aupimo(f"evaluate --table {table}") == (1, "", f"aupimo evaluate: {line}\n")


def test_help_shows_the_exit_codes(aupimo: Any) -> None:
    """`aupimo --help` says what the exit codes mean, on lines that fit a narrow terminal; `--version` the version."""
    assert aupimo("--version") == (0, f"aupimo-torchmetrics {__version__}\n", "")
    code, out, _ = aupimo("--help")
    assert code == 0
    assert out.endswith(EXIT_CODES)
    assert max(map(len, out.splitlines())) <= 80


COMMANDS: dict[str, tuple[Callable[..., Any], ...]] = {
    "demo": (run_demo,),
    "evaluate": (evaluate, Evaluation.save, Evaluation.summary),
    "compare": (compare_paths, Comparison.save),
}
"""The functions behind each subcommand."""
OTHER_NAMES = {"maps": "MAPS", "paths": "PATH", "resize": "--no-resize", "picture_format": "--format"}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_parameter_is_an_option(command: str, monkeypatch: pytest.MonkeyPatch, aupimo: Any) -> None:
    """The help of a subcommand explains each parameter of the functions behind it, and names its default."""
    monkeypatch.setenv("COLUMNS", "70")
    code, out, _ = aupimo(f"{command} --help")
    assert code == 0
    text = " ".join(out.partition("\n\n")[2].split())  # without the usage
    for function in COMMANDS[command]:
        for name, parameter in inspect.signature(function).parameters.items():
            if name not in {"self", "has_folders"}:
                option = OTHER_NAMES.get(name) or "--" + name.replace("_", "-")
                assert re.search(f"{option} [^-]*[a-z]{{3}}", text), name
                assert (f"{option} Turn off that" in text) == (parameter.default is True)
            if isinstance(parameter.default, float):
                assert f"(default: {parameter.default})" in text


def test_help_imports_no_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    """`aupimo --help` loads none of the modules behind the commands, and no package that they need."""
    subjects = [f"aupimo_torchmetrics.{name}" for name in ("compare", "demo", "evaluate", "plotting", "statistics")]
    for name in [name for name in sys.modules if name.startswith(("aupimo_torchmetrics.cli", *subjects))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("aupimo_torchmetrics.lightning", "lightning", "matplotlib", "pandas", "PIL", "scipy", "tifffile"):
        monkeypatch.setitem(sys.modules, name, None)  # an import raises
    with pytest.raises(SystemExit, match=r"^0$"):
        importlib.import_module("aupimo_torchmetrics.cli").main(["--help"])
    assert not any(name in sys.modules for name in subjects)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.slow
def test_closed_streams_are_no_crash(table: Path, closed: str) -> None:
    """A service may have closed the streams: there is no traceback, and the exit code is that of the command."""
    command = f"{sys.executable} -m aupimo_torchmetrics evaluate --table t.csv --fpr-bounds 0.3 0.9 {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=table.parent, capture_output=True, text=True, check=False)  # noqa: S603, S607
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    assert ("category" in done.stdout) == (closed == "2>&-")


LACKING = [
    ("demo", "skimage", "`scikit-image` .*[demo]"),
    ("evaluate --help", "PIL", "`pillow` .*[evaluate]"),
    ("compare a b", "scipy", "`scipy` .*[stats,plot]"),
    ("compare a b --out .", "matplotlib", "`matplotlib` .*[stats,plot]"),
    ("compare a b --out . --report", "jinja2", "`jinja2` .*[evaluate]"),
]


@pytest.mark.parametrize(("command", "hidden", "message"), LACKING)
def test_missing_packages_are_one_line_and_code_1(
    command: str, hidden: str, message: str, monkeypatch: pytest.MonkeyPatch, aupimo: Any
) -> None:
    """Without an extra the command names the missing packages and the remedy, before anything is read."""
    monkeypatch.setitem(sys.modules, hidden, None)
    code, out, err = aupimo(command)
    assert (code, out) == (1, "")
    pattern = message.replace("[", '"aupimo-torchmetrics\\[').replace("]", '\\]"')
    assert re.fullmatch(f"aupimo {command.split(maxsplit=1)[0]}: this command expects {pattern}`\n", err)
