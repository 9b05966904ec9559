"""The main job from the shell, and the demo behind it."""

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

import numpy as np
import pytest
import tifffile
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aupimo_torchmetrics import AUPIMO, AUPIMOResult, __version__
from aupimo_torchmetrics.cli import EXIT_CODES
from aupimo_torchmetrics.compare import Comparison, compare_paths
from aupimo_torchmetrics.demo import DemoReport, overwrite_regions, run_demo, texture_tiles, train_detector
from aupimo_torchmetrics.evaluate import Evaluation, evaluate


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DemoReport:
    """A demo of one epoch."""
    return run_demo("brick", epochs=1, out=tmp_path_factory.mktemp("demo"), seed=3)


def _logged(folder: Path, name: str) -> list[tuple[int, float]]:
    """Steps and values of a scalar in the event files of a run."""
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(name)]


def test_demo_logs_what_it_saves(report: DemoReport) -> None:
    """The event file holds AUPIMO before and after the epoch, equal to the results and to `aupimos.json`.

    The summary holds both means, chance, the result, where the files are, and the next command.
    """
    saved, defects = AUPIMOResult.load(report.out / "aupimos.json"), texture_tiles("brick", seed=3).defects
    assert torch.equal(saved.aupimos.nan_to_num(-1), report.after.aupimos.nan_to_num(-1))
    assert saved.threshold_bounds == report.after.threshold_bounds
    assert saved.paths == [
        f"test/{kind.replace('normal', 'good')}/{index:03}.png" for index, kind in enumerate(defects)
    ]
    (before_step, before), (after_step, after) = _logged(report.out / "tensorboard" / "version_0", "val/aupimo")
    assert 0 == before_step < after_step
    # Event files hold float32, as `compute` returns it.
    assert before == pytest.approx(report.before.mean, abs=1e-7)
    assert after == pytest.approx(saved.mean, abs=1e-7)
    assert _logged(report.out / "tensorboard" / "version_0", "train/loss")
    files = ["aupimo.png", "aupimos.json", "aupimos.safetensors", "data", "maps", "normal_maps", "tensorboard"]
    assert sorted(path.name for path in report.out.iterdir()) == files
    assert report.after.aupimos.isnan().tolist() == [defect == "normal" for defect in defects]
    summary = report.summary()
    assert f"{report.before.mean:.3f} before training, {report.after.mean:.3f} after (chance 0.0039" in summary
    assert str(report.after) in summary
    assert all(str(report.out / name) in summary for name in ("aupimo.png", "aupimos.json"))
    assert f"tensorboard --logdir {report.out}" in summary


def test_training_shows_its_progress_in_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar of epochs is there before the first is done, and shows the score of each."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tiles = texture_tiles("brick")
    detector = train_detector(tiles._replace(train_images=tiles.train_images[:32]), epochs=2)
    shown = capsys.readouterr().err.split("\r")
    assert "0/2" in shown[1]
    assert "AUPIMO" not in shown[1]
    scores = [f"{result.mean:.4f}" for result in detector.results]
    for epoch, score in enumerate(scores):
        assert any(f"{epoch}/2" in text and f"AUPIMO {score}" in text for text in shown)


@pytest.mark.slow
def test_demo_is_fixed_by_the_seed(report: DemoReport, tmp_path: Path) -> None:
    """One seed gives one result, bit for bit, with any number of threads, another seed another.

    Torch's own generator and number of threads are as before.
    """
    torch.manual_seed(99)
    before, num_threads = torch.random.get_rng_state(), torch.get_num_threads()
    results = []
    try:
        for other_threads in (1, 2, 3):
            torch.set_num_threads(other_threads)
            results.append(run_demo("brick", epochs=1, out=tmp_path, seed=3).after.aupimos.nan_to_num(-1))
            assert torch.get_num_threads() == other_threads
    finally:
        torch.set_num_threads(num_threads)
    other = run_demo("brick", epochs=1, out=tmp_path, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(result, report.after.aupimos.nan_to_num(-1)) for result in results)
    assert not torch.equal(other.after.aupimos.nan_to_num(-1), report.after.aupimos.nan_to_num(-1))
    assert (tmp_path / "tensorboard" / "version_1").is_dir()


def test_training_overwrites_what_it_says() -> None:
    """Outside of the regions to find, a training image is the photograph."""
    images = texture_tiles("gravel").train_images[:8]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(10):
            overwritten, is_overwritten = overwrite_regions(images)
            assert is_overwritten.any()
            assert torch.equal(overwritten[~is_overwritten], images[~is_overwritten])
            assert 0 <= overwritten.min() <= overwritten.max() <= 1


def test_saved_maps_score_what_the_demo_says(report: DemoReport, tmp_path: Path, aupimo: Any) -> None:
    """`aupimo evaluate` on the images and maps that the demo writes gives its scores; others give a threshold."""
    lower, upper = report.after.fpr_bounds
    options = f"--data {report.out / 'data'} --fpr-bounds {lower} {upper} --out {tmp_path / 'scores'}"
    assert aupimo(f"evaluate {report.out / 'maps'} {options}")[0] == 0
    result = AUPIMOResult.load(tmp_path / "scores" / "brick" / "aupimo" / "aupimos.json")
    indices = [int(Path(path).stem) for path in result.paths or []]
    assert sorted(indices) == list(range(40))
    torch.testing.assert_close(result.aupimos, report.after.aupimos[indices], rtol=0, atol=1e-12, equal_nan=True)
    assert result.paths == [f"brick/{report.after.paths[index]}" for index in indices]
    assert all((report.out / "data" / "brick" / path).is_file() for path in report.after.paths)
    assert aupimo(f"threshold {report.out / 'normal_maps'} --fpr 1e-3")[0] == 0


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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (ImportError("torch 2.6"), "torch 2.6"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("CUDA out of memory.\nTried"), "CUDA out of memory."),
        (KeyboardInterrupt(), "stopped"),
        (ValueError("too many values to unpack"), None),
        (KeyError("bottle"), None),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), None),
    ],
)
def test_a_bug_is_a_traceback_and_trouble_of_the_machine_is_not(
    error: BaseException, line: str | None, table: Path, monkeypatch: pytest.MonkeyPatch, aupimo: Any
) -> None:
    """What is lacking on the machine is one line and code 1; any other error inside is not said to be the command."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(AUPIMO, "update", fail)
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--epochs 0", "Expected `--epochs` to be at least 1, but got 0"),
        ("--seed -1", "Expected `--seed` to be from 0 to 9223372036854775807, but got -1"),
        ("--epochs 1 --out file/below", ""),
    ],
)
def test_what_the_demo_cannot_do_is_said_first(
    tmp_path: Path, options: str, message: str, monkeypatch: pytest.MonkeyPatch, aupimo: Any
) -> None:
    """A number out of range, and a folder that cannot be, are one line before anything is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, _, err = aupimo(f"demo {options}")
    assert (code, err.count("\n")) == (2 if message else 1, 1)
    assert err.startswith(f"aupimo demo: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("command", "hidden", "message"),
    [
        ("demo", "skimage", "`scikit-image` .*[demo]"),
        ("evaluate --help", "PIL", "`pillow` .*[evaluate]"),
        ("compare a b", "scipy", "`scipy` .*[stats,plot]"),
        ("compare a b --out .", "matplotlib", "`matplotlib` .*[stats,plot]"),
        ("compare a b --out . --report", "jinja2", "`jinja2` .*[evaluate]"),
    ],
)
def test_missing_packages_are_one_line_and_code_1(
    command: str, hidden: str, message: str, monkeypatch: pytest.MonkeyPatch, aupimo: Any
) -> None:
    """Without an extra the command names the missing packages and the remedy, before anything is read."""
    monkeypatch.setitem(sys.modules, hidden, None)
    code, out, err = aupimo(command)
    assert (code, out) == (1, "")
    pattern = message.replace("[", '"aupimo-torchmetrics\\[').replace("]", '\\]"')
    assert re.fullmatch(f"aupimo {command.split(maxsplit=1)[0]}: this command expects {pattern}`\n", err)


@pytest.mark.slow
def test_the_demo_from_the_shell(tmp_path: Path) -> None:
    """The options are those of the run, and redirected output holds its summary and no progress lines."""
    options = ["demo", "--texture", "grass", "--epochs", "1", "--seed", "7", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "aupimo_torchmetrics", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert "AUPIMO on grass: " in done.stdout
    assert sorted(path.stem for path in tmp_path.glob("data/grass/test/good/*")) == [
        f"{index:03}" for index, defect in enumerate(texture_tiles("grass", 7).defects) if defect == "normal"
    ]
    assert len(_logged(tmp_path / "tensorboard" / "version_0", "val/aupimo")) == 2
    assert not re.search(r"it/s|\r", done.stdout + done.stderr)


@pytest.mark.slow
def test_an_interrupted_demo_says_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aupimo: Any) -> None:
    """Ctrl-C while the demo writes is one line that says where finished files are, and exit code 1."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tifffile, "imwrite", stop)
    code, _, err = aupimo(f"demo --epochs 1 --out {tmp_path}")
    assert code == 1
    assert (tmp_path / "aupimos.json").is_file()
    assert err.splitlines()[-1] == f"aupimo demo: stopped; what was finished is in {tmp_path}"
