"""The main job from the shell, and the demo behind it."""

import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aupimo_torchmetrics import AUPIMOResult, __version__, _extras, cli
from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.demo.detector import TextureDetector, overwrite_regions
from aupimo_torchmetrics.demo.run import DemoReport, _saying_what_is_saved, run_demo
from aupimo_torchmetrics.demo.textures import load_texture


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DemoReport:
    """A demo of one epoch."""
    return run_demo("brick", epochs=1, out=tmp_path_factory.mktemp("demo"), seed=3)


def _logged(folder: Path, name: str) -> list[tuple[int, float]]:
    """Steps and values of a scalar in the event files of a run."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_demo_logs_what_it_saves(report: DemoReport) -> None:
    """The event file holds AUPIMO before and after the epoch, equal to the results and to `aupimos.json`."""
    saved = AUPIMOResult.load(report.out / "aupimos.json")
    assert torch.equal(saved.aupimos.nan_to_num(-1), report.after.aupimos.nan_to_num(-1))
    assert saved.threshold_bounds == report.after.threshold_bounds
    assert saved.paths == [
        f"test/{defect.replace('normal', 'good')}/{index:03}.png" for index, defect in enumerate(report.tiles.defects)
    ]
    (before_step, before), (after_step, after) = _logged(report.out / "tensorboard" / "version_0", "val/aupimo")
    assert 0 == before_step < after_step
    # Event files hold float32, as `compute` returns it.
    assert before == pytest.approx(report.before.mean, abs=1e-7)
    assert after == pytest.approx(saved.mean, abs=1e-7)
    assert _logged(report.out / "tensorboard" / "version_0", "train/loss")


def test_demo_writes_nothing_else(report: DemoReport) -> None:
    """There are the scores, the picture, and one folder with the event files and settings of the run."""
    assert sorted(path.name for path in report.out.iterdir()) == [
        "aupimo.png",
        "aupimos.json",
        "aupimos.safetensors",
        "tensorboard",
    ]
    logs = [path.name for path in (report.out / "tensorboard" / "version_0").iterdir()]
    assert all(name.startswith("events.out.tfevents") or name == "hparams.yaml" for name in logs)
    assert (report.out / "aupimo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_scores_the_validation_tiles(report: DemoReport) -> None:
    """Anomalous tiles have a score, normal ones have none, and bounds are resolved by the normal pixels."""
    assert report.after.aupimos.isnan().tolist() == [defect == "normal" for defect in report.tiles.defects]
    lower, upper = report.after.fpr_bounds
    num_normal_pixels = int(report.after.aupimos.isnan().sum()) * report.tiles.masks[0].numel()
    assert num_normal_pixels * lower > 50
    assert report.after.chance == pytest.approx((upper - lower) / math.log(upper / lower))
    assert 0 < report.metric_seconds < report.seconds


def test_summary_says_what_was_found(report: DemoReport) -> None:
    """The summary holds both means, chance, the extreme images, thresholds, the time and the next command."""
    summary = report.summary()
    assert f"{report.before.mean:.3f} before training, {report.after.mean:.3f} after (chance 0.0039" in summary
    for index in (report.after.aupimos.nan_to_num(-1).argmax(), report.after.aupimos.nan_to_num(2).argmin()):
        key = f"test/{report.tiles.defects[index]}/{int(index):03}.png"
        row = next(line.split() for line in summary.splitlines() if key in line)
        assert row[-3:] == [key, str(int(report.tiles.masks[index].sum())), f"{report.after.aupimos[index]:.3f}"]
    assert f"{report.after.threshold_bounds[1]:.3f} at FPR 0.001" in summary
    assert "Time in the metric" in summary
    assert f"tensorboard --logdir {report.out}" in summary
    assert max(len(line) for line in summary.replace(str(report.out), "out").splitlines()) <= 120


@pytest.mark.slow
def test_demo_is_fixed_by_the_seed(report: DemoReport, tmp_path: Path) -> None:
    """One seed gives one result, bit for bit, another seed another, and torch's own generator is not touched."""
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    again = run_demo("brick", epochs=1, out=tmp_path, seed=3)
    other = run_demo("brick", epochs=1, out=tmp_path, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(again.after.aupimos.nan_to_num(-1), report.after.aupimos.nan_to_num(-1))
    assert not torch.equal(other.after.aupimos.nan_to_num(-1), report.after.aupimos.nan_to_num(-1))
    assert (tmp_path / "tensorboard" / "version_1").is_dir()


def test_no_epoch_is_refused(tmp_path: Path) -> None:
    """Fewer epochs than one are a ValueError, before anything is written."""
    with pytest.raises(ValueError, match="`epochs` to be at least 1, but got 0"):
        run_demo(epochs=0, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_training_overwrites_what_it_says() -> None:
    """Outside of the regions to find, a training image is the photograph."""
    images = load_texture("gravel")[:64].unfold(1, 64, 64).permute(1, 0, 2)[:, None]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(10):
            overwritten, is_overwritten = overwrite_regions(images)
            assert is_overwritten.any()
            assert torch.equal(overwritten[~is_overwritten], images[~is_overwritten])
            assert 0 <= overwritten.min() <= overwritten.max() <= 1


def test_saved_maps_score_what_the_demo_says(tmp_path: Path) -> None:
    """`aupimo evaluate` on the images and maps that the demo writes gives the demo's scores."""
    report = run_demo("gravel", epochs=1, out=tmp_path, save_maps=True)
    lower, upper = report.after.fpr_bounds
    options = ["--fpr-bounds", str(lower), str(upper), "--out", str(tmp_path / "scores")]
    assert main(["evaluate", str(tmp_path / "maps"), "--data", str(tmp_path / "data"), *options]) == 0
    result = AUPIMOResult.load(tmp_path / "scores" / "gravel" / "aupimo" / "aupimos.json")
    indices = [int(Path(path).stem) for path in result.paths or []]
    assert sorted(indices) == list(range(40))
    torch.testing.assert_close(result.aupimos, report.after.aupimos[indices], rtol=0, atol=1e-12, equal_nan=True)
    assert result.paths == [f"gravel/{report.after.paths[index]}" for index in indices]
    assert all((tmp_path / "data" / "gravel" / path).is_file() for path in report.after.paths)


def test_shell_passes_options_and_prints_the_summary(
    report: DemoReport, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`aupimo demo` hands its options to the demo and prints what it found."""
    calls = []

    def note(*args: Any, **settings: Any) -> DemoReport:
        calls.append((*args, *settings.items()))
        return report

    monkeypatch.setattr("aupimo_torchmetrics.demo.run.run_demo", note)
    options = ["--texture", "grass", "--epochs", "2", "--out", "there", "--seed", "7", "--save-maps"]
    assert main(["demo", *options]) == 0
    assert main(["demo"]) == 0
    assert calls == [
        ("grass", 2, "there", 7, ("save_maps", True)),
        ("brick", 30, "aupimo_demo", 0, ("save_maps", False)),
    ]
    assert report.summary() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "aupimo: the following arguments are required: COMMAND"),
        (["demos"], "invalid choice: 'demos'"),
        (["demo", "--texture", "sand"], "aupimo demo: argument --texture: invalid choice: 'sand'"),
        (["demo", "--epochs", "0"], "argument --epochs: expected an integer of at least 1, but got '0'"),
        (["demo", "--epochs", "x"], "argument --epochs: expected an integer of at least 1, but got 'x'"),
        (["demo", "--seed", "-1"], "argument --seed: expected"),
        (["demo", "--seed", "99999999999999999999"], "argument --seed: expected an integer from 0 to"),
        (["demo", "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_a_wrong_command_is_one_line_and_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that is not understood ends with code 2 and one line that names what is wrong."""
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_missing_packages_are_one_line_and_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the extra the command names the missing packages and the remedy, without a traceback."""
    monkeypatch.setattr(_extras, "find_spec", lambda name: None if name in {"lightning", "skimage"} else object())
    assert main(["demo"]) == 1
    expected = (
        "aupimo demo: this command expects `lightning`, `scikit-image` to be installed. "
        'Please install with `pip install "aupimo-torchmetrics[demo]"`\n'
    )
    assert capsys.readouterr() == ("", expected)


def test_a_folder_that_cannot_be_made_is_one_line_and_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the output folder cannot be, the command says so before it trains."""
    (tmp_path / "file").touch()
    assert main(["demo", "--epochs", "1", "--out", str(tmp_path / "file" / "below")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("aupimo demo: ")
    assert err.count("\n") == 1


TRANSLATED = {
    "demo": {
        "Expected `texture` to be 'brick'": "Expected `--texture` to be 'brick'",
        "`save_maps=True` writes them": "`--save-maps` writes them",
        "Expected `seed`": "Expected `--seed`",
    },
    "evaluate": {
        "Expected `maps`, `data` and `num_thresholds`": "Expected `MAPS`, `--data` and `--num-thresholds`",
        "Use `num_thresholds=None`, `num_thresholds=300000`": "Use `--num-thresholds None`, `--num-thresholds 300000`",
        "Use `fpr_bounds=(1e-4, 1e-3)`": "Use `--fpr-bounds 1e-4 1e-3`",
        "give `normal_folder=['ok', 'not bad']`": "give `--normal-folder ok --normal-folder 'not bad'`",
        'give `normal_folder=["it\'s ok"]`': "give `--normal-folder 'it'\"'\"'s ok'`",
        'Use `metrics=["aupimo", "aupro"]`': "Use `--metrics aupimo aupro`",
        "`skip_bad` and `skip_bad=True`": "`--skip-bad` and `--skip-bad`",
        "`resize` and `resize=False`": "`--no-resize` and `--no-resize`",
        "`skip_bad=False` and `resize=True`": "`skip_bad=False` and `resize=True`",
        "a file `asmaps.pt` with `asmaps`, `image_ids`": "a file `asmaps.pt` with `asmaps`, `image_ids`",
        "data, maps, `root` and `update`": "data, maps, `root` and `update`",
    },
    "compare": {
        "Expected `paths` to be files": "Expected `PATH` to be files",
        "Expected `names`, `atol` and `out`": "Expected `--names`, `--atol` and `--out`",
    },
}


@pytest.mark.parametrize("command", TRANSLATED)
@pytest.mark.parametrize("make_error", [ValueError, TypeError, BadDataError, OSError])
def test_errors_of_the_library_are_told_in_options(
    command: str, make_error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a subcommand raises is one line that names its options, with the code of the table."""
    argv = {"demo": [], "evaluate": ["maps", "--data", "data"], "compare": ["a.json"]}[command]
    for text, expected in TRANSLATED[command].items():

        def fail(_: object, text: str = text) -> int:
            raise make_error(text)

        monkeypatch.setattr(getattr(cli, f"_{command}"), "run", fail)
        assert main([command, *argv]) == (2 if make_error in {ValueError, TypeError} else 1)
        assert capsys.readouterr() == ("", f"aupimo {command}: {expected}\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("first\nsecond"), 2, "first"),
        (ValueError(), 2, "ValueError"),
        (BadDataError("2 files:\n  a: x\n  b: y"), 1, "2 files:\n  a: x\n  b: y"),
        (ImportError("torch 2.6"), 1, "torch 2.6"),
        (MemoryError(), 1, "MemoryError"),
        (RuntimeError("CUDA out of memory.\nTried"), 1, "CUDA out of memory."),
        (KeyboardInterrupt(), 1, "stopped"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of error has its code, and one line unless it lists bad files."""

    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(cli._demo, "run", fail)
    assert main(["demo"]) == code
    assert capsys.readouterr() == ("", f"aupimo demo: {line}\n")


def test_help_shows_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """`aupimo --help` says what the exit codes mean, on lines that fit a terminal of 120 columns."""
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.endswith(cli.EXIT_CODES)
    assert max(map(len, out.splitlines())) <= 120


def test_help_imports_no_subject() -> None:
    """`aupimo --help` loads nothing of the package that importing the package does not load, but the command."""
    code = """
import sys, aupimo_torchmetrics
before = set(sys.modules)
from aupimo_torchmetrics.cli import main
try:
    main(["--help"])
except SystemExit:
    print(*(name for name in sys.modules if name not in before and name.startswith("aupimo_torchmetrics")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    loaded = set(done.stdout.splitlines()[-1].split())
    helpers = {f"aupimo_torchmetrics.{name}" for name in ("_exports", "_extras", "_files")}
    assert {".".join(name.split(".")[:2]) for name in loaded - helpers} == {"aupimo_torchmetrics.cli"}


def test_module_runs_as_a_program() -> None:
    """`python -m aupimo_torchmetrics --version` prints the version and ends with code 0."""
    command = [sys.executable, "-m", "aupimo_torchmetrics", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == f"aupimo-torchmetrics {__version__}\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.slow
def test_closed_streams_are_no_crash(tmp_path: Path, closed: str) -> None:
    """A service may have closed the streams: there is no traceback, and the exit code is that of the command."""
    np.save(tmp_path / "a.npy", np.arange(4.0).reshape(2, 2))
    np.save(tmp_path / "b.npy", np.arange(4.0).reshape(2, 2))
    np.save(tmp_path / "mask.npy", np.eye(2))
    (tmp_path / "t.csv").write_text("image,mask,map\na,,a.npy\nb,mask.npy,b.npy\n", encoding="utf-8")
    command = f"{sys.executable} -m aupimo_torchmetrics evaluate --table t.csv --fpr-bounds 0.3 0.9 {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603, S607
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    assert ("category" in done.stdout) == (closed == "2>&-")


def test_an_interrupted_demo_says_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the demo's training is one line with the folder that was written, and exit code 1."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(TextureDetector, "training_step", stop)
    try:
        assert main(["demo", "--epochs", "1", "--out", str(tmp_path)]) == 1
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning changes it
    saved = tmp_path / "tensorboard" / "version_0"
    assert saved.is_dir()
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == f"aupimo demo: stopped; saved: {saved}"
    assert "AUPIMO on" not in out


def test_a_demo_that_is_interrupted_at_its_maps_names_what_came_before(tmp_path: Path) -> None:
    """Ctrl-C while images and maps are written names their folders, also where an earlier run has written the same."""

    @_saying_what_is_saved(tmp_path, "brick")
    def write_and_stop() -> None:
        for name in ("data/brick/test/good/000.png", "maps/brick/test/good/000.tiff"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt) as caught:
            write_and_stop()
        assert str(caught.value) == f"stopped; saved: {tmp_path / 'data/brick'}, {tmp_path / 'maps/brick'}"


def test_a_demo_without_a_terminal_shows_no_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Redirected output of the demo holds no progress lines, and names images by their paths."""
    assert main(["demo", "--epochs", "1", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "it/s" not in out + err
    assert "\r" not in out + err
    paths = AUPIMOResult.load(tmp_path / "aupimos.json").paths
    assert paths is not None
    listed = [word for line in out.splitlines() for word in line.split() if word in paths]
    assert len(listed) == 6
