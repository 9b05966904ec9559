"""`aupimo compare` says of result files which model is better, and of files that cannot be compared why."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import pytest
import torch
from matplotlib import pyplot as plt

from aupimo_torchmetrics import AUPIMO, AUPIMOResult
from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.compare import BadDataError, compare_paths
from aupimo_torchmetrics.statistics import compare_models, rank_models

BENCHMARK = Path(__file__).parent / "data" / "published" / "benchmark"
MODELS = ("padim_r18", "patchcore_wr50", "uflow_ext")
BOUNDS = (1e-5, 1e-4)


def published_file(model: str, category: str) -> Path:
    """Path of published scores."""
    return BENCHMARK / model / "mvtec" / category / "aupimo" / "aupimos.json"


def save(path: Path, scores: list[float], bounds: tuple[float, float] = BOUNDS, paths: list[str] | None = None) -> str:
    """Write scores to a result file in a folder that is made if need be, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    AUPIMOResult(torch.tensor(scores, dtype=torch.float64), bounds, (0.0, 1.0), paths=paths).save(path)
    return str(path)


@pytest.fixture(autouse=True)
def _no_figure_is_open() -> None:
    """Figures that other tests left open do not count."""
    plt.close("all")


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """Three models on two published categories, in the layout of the official package."""
    for model in MODELS:
        for category in ("screw", "zipper"):
            shutil.copytree(BENCHMARK / model / "mvtec" / category, tmp_path / "in" / model / "mvtec" / category)
    return tmp_path / "in"


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> list[str]:
    """Run `aupimo compare`, which must go well and say nothing on standard error, and return the lines it prints."""
    assert main(["compare", *map(str, argv)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def refused(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 2) -> str:
    """Run `aupimo compare`, which must end with the code and one line on standard error, and return this."""
    assert main(["compare", *map(str, argv)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("aupimo compare: ")
    assert err.count("\n") == 1
    return err


def test_files_of_models_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """The table is that of `compare_models` with the interval of each mean; models are named by their folders."""
    lines = run(capsys, *(published_file(model, "screw") for model in MODELS))
    results = {model: AUPIMOResult.load(published_file(model, "screw")) for model in MODELS}
    assert lines == ["AUPIMO, shared FPR 1e-05 to 0.0001", *str(compare_models(results)).splitlines()]


def test_options_reach_the_comparison(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Test, alternative, tolerance and names change the table as they change `compare_models`."""
    a, b = [0.1, 0.5, 0.9, 0.7, 0.3], [0.2, 0.45, 1.0, 0.8, 0.4]
    files = [save(tmp_path / "a.json", a), save(tmp_path / "b.json", b)]
    results = {"x": AUPIMOResult.load(files[0]), "y": AUPIMOResult.load(files[1])}
    options = {
        ("--test", "ttest"): {"test": "ttest"},
        ("--alternative", "less"): {"alternative": "less"},
        ("--alternative", "two-sided"): {"alternative": "two-sided"},
        ("--atol", "0.06"): {"atol": 0.06},
    }
    tables = set()
    for argv, settings in options.items():
        lines = run(capsys, *files, "--names", "x", "y", *argv)
        expected = str(compare_models(results, **settings)).splitlines()
        assert lines[1:] == expected
        tables.add("\n".join(expected))
    assert len(tables) == 4


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a/mvtec/wood/aupimo/aupimos.json", "runs/b/mvtec/wood/aupimo/aupimos.json"], ["a", "b"]),
        (["a.json", "b.json"], ["a", "b"]),
        (["a.v1.json", "a.v2.json"], ["a.v1", "a.v2"]),
        (["x/s.json", "x/y/s.json"], ["s", "y/s"]),
        (["a/1/s.json", "a/2/s.json", "b/1/s.json"], ["a/1", "a/2", "b/1"]),
    ],
)
def test_names_are_what_tells_paths_apart(paths: list[str], names: list[str], tmp_path: Path) -> None:
    """What all paths have in common at the front and at the end is cut, as far as something remains of each."""
    assert list(compare_paths([save(tmp_path / path, [0.1, 0.2]) for path in paths]).order) == names


def test_files_are_written_for_a_comparison(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The folder is made, holds the printed table, two more tables and two pictures, and no figure stays open."""
    out = tmp_path / "new" / "folder"
    lines = run(capsys, *(published_file(model, "zipper") for model in MODELS), "--out", out)
    names = ["comparison.txt", "comparison.csv", "comparison.tex", "confidence.png", "distribution.png"]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert (out / "comparison.txt").read_text(encoding="utf-8").splitlines() == lines[:-2]
    assert lines[-1] == f"written to {out}: {', '.join(names)}"
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.glob("*.png"))
    assert plt.get_fignums() == []


def test_the_published_benchmark_is_ranked(capsys: pytest.CaptureFixture[str]) -> None:
    """The mean of each of 13 models in each of 15 categories is printed, and the ranking over the categories."""
    lines = run(capsys, BENCHMARK)
    categories = lines[1].split()[2:]
    assert categories == sorted(path.name for path in (BENCHMARK / MODELS[0] / "mvtec").iterdir())
    models = sorted(path.name for path in BENCHMARK.iterdir())
    results = {
        category: {model: AUPIMOResult.load(published_file(model, category)) for model in models}
        for category in categories
    }
    ranking = rank_models(results)
    for line, model in zip(lines[2:15], ranking.order, strict=True):
        assert line.split() == [model, *(f"{results[category][model].mean:.3f}" for category in categories)]
    assert lines[16:31] == str(ranking).splitlines()


def test_files_are_written_for_a_benchmark(capsys: pytest.CaptureFixture[str], benchmark: Path, tmp_path: Path) -> None:
    """The folder holds what is printed, the comparison in each category, and pictures of ranks and of each category."""
    out = tmp_path / "out"
    lines = run(capsys, benchmark, "--test", "ttest", "--out", out)
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    tables = ["comparison.csv", "comparison.tex", "comparison.txt"]
    assert written == [*tables, "ranks.png", "screw/confidence.png", "zipper/confidence.png"]
    text = (out / "comparison.txt").read_text(encoding="utf-8")
    assert text.splitlines()[: len(lines) - 2] == lines[:-2]
    for category in ("screw", "zipper"):
        results = {model: AUPIMOResult.load(published_file(model, category)) for model in MODELS}
        title, _, best, *_ = str(compare_models(results, "ttest")).splitlines()
        assert f"{category}\n{title}\n" in text
        assert f"\n{best}\n" in text
    assert plt.get_fignums() == []


def test_one_category_is_compared_as_files_are(capsys: pytest.CaptureFixture[str], benchmark: Path) -> None:
    """A folder with one category gives what the files themselves give."""
    for model in MODELS:
        shutil.rmtree(benchmark / model / "mvtec" / "zipper")
    assert run(capsys, benchmark) == run(capsys, *(published_file(model, "screw") for model in MODELS))


def test_categories_are_found_without_and_in_several_collections(tmp_path: Path) -> None:
    """Without a collection, or with one, categories have their own names, and with several those of both."""
    for model in ("a", "b"):
        save(tmp_path / "plain" / model / "wood" / "aupimo" / "aupimos.json", [0.1, 0.2])
        for category in ("mvtec/wood", "visa/wood"):
            save(tmp_path / "several" / model / category / "aupimo" / "aupimos.json", [0.1, 0.2])
    assert list(compare_paths(tmp_path / "plain").results) == ["wood"]
    comparison = compare_paths([str(tmp_path / "several")])
    assert list(comparison.results) == list(comparison.comparisons) == ["mvtec/wood", "visa/wood"]
    assert list(comparison.results["visa/wood"]) == ["a", "b"]
    assert comparison.skipped == ""


def test_a_category_that_a_model_lacks_is_skipped(
    capsys: pytest.CaptureFixture[str], benchmark: Path, tmp_path: Path
) -> None:
    """What is missing is named below the tables and in the file, and the common categories are compared."""
    for model in MODELS:
        shutil.copytree(BENCHMARK / model / "mvtec" / "wood", benchmark / model / "mvtec" / "wood")
    shutil.rmtree(benchmark / "uflow_ext" / "mvtec" / "screw")
    shutil.copytree(BENCHMARK / "uflow_ext" / "mvtec" / "tile", benchmark / "uflow_ext" / "mvtec" / "tile")
    assert main(["compare", str(benchmark), "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    missing = "screw (missing: uflow_ext), tile (missing: padim_r18, patchcore_wr50)"
    note = f"skipped, as not all models have it: {missing}"
    assert err == ""
    assert note in out.splitlines()
    assert compare_paths(benchmark).skipped == note
    assert out.splitlines()[1].split()[2:] == ["wood", "zipper"]
    assert note in (tmp_path / "out" / "comparison.txt").read_text(encoding="utf-8")


def test_paths_may_be_texts_or_paths(tmp_path: Path) -> None:
    """Files and folders are given by `str` or `Path`, a folder also without a list, and written to either."""
    files = [save(tmp_path / "in" / name / "wood" / "aupimo" / "aupimos.json", [0.1, 0.2]) for name in "ab"]
    expected = compare_paths(files).summary()
    assert compare_paths([Path(files[0]), files[1]]).summary() == expected
    for folder in (tmp_path / "in", str(tmp_path / "in")):
        assert compare_paths(folder).summary() == compare_paths([folder]).summary() == expected
    for out in (tmp_path / "out", str(tmp_path / "out")):
        written = compare_paths(files).save(out)
        assert sorted(written) == sorted((tmp_path / "out").iterdir())


def test_a_comparison_holds_what_it_compared(benchmark: Path, tmp_path: Path) -> None:
    """Results, comparisons and ranking are there, and all files that `save` returns were written."""
    comparison = compare_paths(benchmark, test="ttest", alternative="less")
    assert list(comparison.comparisons) == ["screw", "zipper"]
    assert comparison.ranking == rank_models(comparison.results)
    assert comparison.comparisons["zipper"] == compare_models(comparison.results["zipper"], "ttest", "less")
    written = comparison.save(tmp_path / "out")
    assert sorted(written) == sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert compare_paths([published_file(model, "screw") for model in MODELS]).ranking is None


def test_errors_about_files_are_told_from_errors_about_the_call(tmp_path: Path) -> None:
    """What a file holds is a BadDataError, and a call that is wrong a plain ValueError that names the argument."""
    good, undefined = save(tmp_path / "good.json", [0.1, 0.2]), save(tmp_path / "nan.json", [math.nan, math.nan])
    foreign = tmp_path / "foreign.json"
    foreign.write_text("{}", encoding="utf-8")
    for bad in (foreign, undefined, save(tmp_path / "other.json", [0.1])):
        with pytest.raises(BadDataError):
            compare_paths([good, bad])
    wrong_calls = [
        ("paths", [[]]),
        ("paths", [[good]]),
        ("paths", [[good, tmp_path / "missing.json"]]),
        ("paths", [[good, tmp_path]]),
        ("names", [[good, good], ["x"]]),
        ("names", [tmp_path, ["x"]]),
        ("test", [[good, good], ["x", "y"], "anova"]),
        ("atol", [[good, good], ["x", "y"], "ttest", "less", -1]),
    ]
    for name, arguments in wrong_calls:
        with pytest.raises(ValueError, match=f"`{name}`") as caught:
            compare_paths(*arguments)
        assert not isinstance(caught.value, BadDataError)


def test_paths_that_are_no_results_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A missing file and too few files are named in one line, with code 2, and a file that is no result with code 1."""
    good = save(tmp_path / "good.json", [0.1, 0.2])
    foreign, picture = tmp_path / "foreign.json", tmp_path / "picture.png"
    foreign.write_text("{}", encoding="utf-8")
    picture.write_bytes(b"\x89PNG" + bytes(99))
    missing = tmp_path / "missing.json"
    assert f"there is none at {missing}" in refused(capsys, good, missing)
    assert f"there is none at {missing}" in refused(capsys, missing)
    assert f"could not read {foreign}" in refused(capsys, good, foreign, code=1)
    assert f"could not read {picture}" in refused(capsys, good, picture, code=1)
    assert f"two files or more, or one benchmark folder, but got the single file {good}" in refused(capsys, good)
    assert "names of the models to be distinct, but got 'good' twice" in refused(capsys, good, good)
    assert "a folder among 2" in refused(capsys, good, tmp_path)


def test_names_that_do_not_fit_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """There must be a distinct name for each file, and none for a folder."""
    a, b = (save(tmp_path / f"{name}.json", [0.1, 0.2]) for name in "ab")
    assert "a name for each of 2 files, but got 1" in refused(capsys, a, b, "--names", "x")
    assert "but got 'x' twice" in refused(capsys, a, b, "--names", "x", "x")
    assert "with files only" in refused(capsys, tmp_path, "--names", "x", "y")


def test_results_that_cannot_be_compared_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Other images and bounds are the errors of `compare_models`, with code 1, and a wrong setting with code 2."""
    a = save(tmp_path / "a.json", [0.1, 0.2], paths=["1.png", "2.png"])
    others = {
        "'2.png' is in only one": save(tmp_path / "b.json", [0.1, 0.2], paths=["1.png", "3.png"]),
        "same `fpr_bounds`": save(tmp_path / "c.json", [0.1, 0.2], bounds=(1e-3, 1e-2)),
        "but got 2 of 'a' and 3 of 'd'": save(tmp_path / "d.json", [0.1, 0.2, 0.3]),
    }
    for reason, other in others.items():
        assert reason in refused(capsys, a, other, code=1)
    assert "scores of two images or more, but got 0" in refused(
        capsys, *(save(tmp_path / f"{name}.json", [math.nan, math.nan]) for name in "xy"), code=1
    )
    fitting = save(tmp_path / "e.json", [0.1, 0.2], paths=["1.png", "2.png"])
    assert "`--atol` to be at least 0, but got -1.0" in refused(capsys, a, fitting, "--atol", "-1")


def test_folders_that_cannot_be_compared_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A folder of fewer than two models, without a common category, or with an unfit one is refused with its name."""
    root = tmp_path / "root"
    root.mkdir()
    assert f"in {root}, but got 0." in refused(capsys, root, code=1)
    save(root / "a" / "wood" / "aupimo" / "aupimos.json", [0.1, 0.2])
    assert f"in {root}, but got 1 (a)." in refused(capsys, root, code=1)
    save(root / "b" / "tile" / "aupimo" / "aupimos.json", [0.1, 0.2])
    message = "each lacks some: tile (missing: a), wood (missing: b)"
    assert message in refused(capsys, root, code=1)
    for category in ("wood", "tile"):
        for model in "ab":
            save(root / model / category / "aupimo" / "aupimos.json", [0.1, 0.2])
    save(root / "b" / "tile" / "aupimo" / "aupimos.json", [0.1, 0.2, 0.3])
    assert "compare: tile: Expected `results` to be of the same images" in refused(
        capsys, root, "--out", tmp_path / "o", code=1
    )
    assert not (tmp_path / "o").exists()
    save(root / "b" / "tile" / "aupimo" / "aupimos.json", [math.nan, math.nan])
    assert "mean of 'b' on 'tile' is undefined" in refused(capsys, root, code=1)
    (root / "b" / "tile" / "aupimo" / "aupimos.json").write_text("[", encoding="utf-8")
    assert "could not read" in refused(capsys, root, code=1)


@pytest.mark.parametrize(("hidden", "out"), [("scipy", False), ("scipy", True), ("matplotlib", True)])
def test_missing_packages_are_one_line_and_code_1(
    hidden: str, out: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without scipy, or for pictures matplotlib, the command names the package and the remedy."""
    monkeypatch.setitem(sys.modules, hidden, None)
    argv = [BENCHMARK, *(["--out", tmp_path / "out"] if out else [])]
    line = refused(capsys, *argv, code=1)
    assert f"expects `{hidden}` to be installed" in line
    assert '`pip install "aupimo-torchmetrics[stats,plot]"`' in line
    assert not (tmp_path / "out").exists()


def test_tables_need_no_matplotlib(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], benchmark: Path
) -> None:
    """Without `--out`, matplotlib may be missing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(capsys, benchmark)


def test_a_folder_that_cannot_be_made_is_one_line_and_code_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where the output folder cannot be, the command says so."""
    (tmp_path / "file").touch()
    files = [save(tmp_path / f"{name}.json", [0.1, 0.2]) for name in "ab"]
    assert str(tmp_path / "file") in refused(capsys, *files, "--out", tmp_path / "file" / "below", code=1)


@pytest.mark.parametrize("tqdm_is_missing", [False, True])
def test_progress_is_shown_on_a_terminal_only(
    tqdm_is_missing: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], benchmark: Path
) -> None:
    """A bar over the categories is on standard error if that is a terminal, and none if tqdm is missing."""
    if tqdm_is_missing:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    assert run(capsys, benchmark)  # not a terminal: nothing on standard error
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["compare", str(benchmark)]) == 0
    assert ("comparing" in capsys.readouterr().err) is not tqdm_is_missing


def test_comparing_runs_as_a_program(tmp_path: Path) -> None:
    """From the shell, an error is one line and code 2, without a traceback, where no display is."""
    command = [sys.executable, "-W", "error", "-m", "aupimo_torchmetrics", "compare", str(tmp_path / "a.json")]
    environment = {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "MPLBACKEND"}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def scored(maps: torch.Tensor, masks: torch.Tensor, num_thresholds: int | None = None) -> AUPIMOResult:
    """Score maps."""
    metric = AUPIMO(num_thresholds, fpr_bounds=(1e-2, 1e-1))
    metric.update(maps, masks, image_ids=[f"crack/{i}.png" for i in range(len(maps))])
    return metric.result()


@pytest.fixture
def unlike(tmp_path: Path) -> Path:
    """Results of the same maps by several numbers of thresholds, by other masks, and without what says it."""
    masks = torch.zeros(12, 40, 40, dtype=torch.bool)
    masks[4:, 5:15, 5:15] = True
    wide = masks.clone()
    wide[4:, 4:16, 4:16] = True
    maps = torch.randn(masks.shape, generator=torch.Generator().manual_seed(0)) + 2 * masks
    results = {str(number): scored(maps, masks, number) for number in (50, 1000, 300_000)}
    results |= {"exact": scored(maps, masks), "same": scored(maps + 1, masks), "wide": scored(maps, wide)}
    for name in ("official", "official2"):
        results[name] = results["300000"]
    for name, result in results.items():
        result.save(tmp_path / f"{name}.json")
        if "official" in name:
            (tmp_path / f"{name}.safetensors").unlink()
    return tmp_path


def warned(folder: Path, names: list[str]) -> list[str]:
    """Warnings of a comparison, which stand in its summary and in its JSON, too."""
    comparison = compare_paths([folder / f"{name}.json" for name in names])
    assert [f"warning: {text}" in comparison.summary() for text in comparison.warnings] == [True] * len(
        comparison.warnings
    )
    assert comparison.to_dict()["warnings"] == list(comparison.warnings)
    return list(comparison.warnings)


@pytest.mark.filterwarnings("ignore:AUPIMO may be inaccurate")
@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["50", "300000"], "50 for 50; 300000 for 300000."),
        (["50", "1000"], "50 for 50; 1000 for 1000."),
        (["50", "300000", "exact", "same"], "50 for 50; 300000 for 300000; exact for exact, same."),
        (["exact", "300000"], "exact for exact; 300000 for 300000."),
        (["official", "exact"], "unknown for official; exact for exact."),
        (["official", "50"], "unknown for official; 50 for 50."),
        (["exact", "same"], ""),
        (["official", "official2"], ""),
        (["official", "300000"], ""),
    ],
)
def test_unlike_numbers_of_thresholds_are_named(unlike: Path, names: list[str], text: str) -> None:
    """Each number stands with its models, and what a file does not say is unknown where it could matter."""
    lines = warned(unlike, names)
    assert len(lines) == bool(text)
    assert not text or f"not scored alike: `num_thresholds` is {text}" in lines[0]


@pytest.mark.filterwarnings("ignore:AUPIMO may be inaccurate")
def test_seeds_that_were_not_scored_alike_are_named(unlike: Path) -> None:
    """A seed counts, too, though its model is shown by the mean over its seeds."""
    for source, place in (("exact", "a/seed0"), ("50", "a/seed1"), ("exact", "b"), ("same", "c")):
        (unlike / f"in/{place}/tile/aupimo").mkdir(parents=True)
        for suffix in ("json", "safetensors"):
            shutil.copy(unlike / f"{source}.{suffix}", unlike / f"in/{place}/tile/aupimo/aupimos.{suffix}")
    (line,) = compare_paths(unlike / "in").warnings
    assert "`num_thresholds` is exact for a/seed0, b, c; 50 for a/seed1." in line


@pytest.mark.filterwarnings("ignore:AUPIMO may be inaccurate")
def test_unlike_masks_are_named(unlike: Path) -> None:
    """A warning says that scores differ by the masks, as far as these are known."""
    (line,) = warned(unlike, ["exact", "wide"])
    assert "not the same masks: 800 pixels are a defect for exact, 1,152 for wide" in line
    (unlike / "wide.safetensors").write_bytes(b"broken")
    (line,) = warned(unlike, ["exact", "wide"])
    assert "unknown for wide" in line
