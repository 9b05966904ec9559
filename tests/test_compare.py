"""`aupimo compare` says of result files which model is better, and of files that cannot be compared why."""

import itertools
import math
import re
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from data_sets import compare, write_result
from matplotlib import pyplot as plt

from aupimo_torchmetrics import AUPIMO, AUPIMOResult
from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.compare import BadDataError, compare_paths
from aupimo_torchmetrics.statistics import compare_models, rank_models

BENCHMARK = Path(__file__).parent / "data" / "published" / "benchmark"
MODELS = ("padim_r18", "patchcore_wr50", "uflow_ext")


def published_file(model: str, category: str) -> Path:
    """Path of published scores."""
    return BENCHMARK / model / "mvtec" / category / "aupimo" / "aupimos.json"


def results_of(category: str, models: Iterable[str] = MODELS) -> dict[str, AUPIMOResult]:
    """Published scores of models."""
    return {model: AUPIMOResult.load(published_file(model, category)) for model in models}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models on two published categories, in the layout of the official package."""
    folder = tmp_path_factory.mktemp("benchmark")
    for model, category in itertools.product(MODELS, ("screw", "zipper")):
        shutil.copytree(BENCHMARK / model / "mvtec" / category, folder / model / "mvtec" / category)
    return folder


ONLY_FOR_THESE = (
    "Only tests for these thresholds are possible, as per-image scores are all that is known of padim_r18, "
    "patchcore_wr50, uflow_ext. They are too sure: other images would have other thresholds. `aupimo evaluate --out` "
    "and `AUPIMOResult.save` keep what resampling needs."
)


def test_files_of_models_are_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The table is that of `compare_models` with the interval of each mean; models are named by their folders.

    A folder is made, holds the printed table, two more tables and two pictures, and no figure stays open.
    """
    out, open_before = tmp_path / "new" / "folder", plt.get_fignums()
    printed = compare(capsys, *(published_file(model, "screw") for model in MODELS), "--out", out)
    table = f"AUPIMO, shared FPR 1e-05 to 0.0001\n{compare_models(results_of('screw'))}\n\n{ONLY_FOR_THESE}\n"
    names = ["comparison.txt", "comparison.csv", "comparison.tex", "confidence.png", "distribution.png"]
    assert printed == f"{table}\nwritten to {out}: {', '.join(names)}\n"
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert (out / "comparison.txt").read_text(encoding="utf-8") == table
    assert plt.get_fignums() == open_before


def test_options_reach_the_comparison(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Test, alternative, tolerance and names change the table as they change `compare_models`."""
    scores = {"a": [0.1, 0.5, 0.9, 0.7, 0.3], "b": [0.2, 0.45, 1.0, 0.8, 0.4]}
    files = [write_result(tmp_path / f"{name}.json", each) for name, each in scores.items()]
    results = {name: AUPIMOResult.load(file) for name, file in zip("xy", files, strict=True)}
    options = ({"test": "ttest"}, {"alternative": "less"}, {"alternative": "two-sided"}, {"atol": 0.06})
    expected = [str(compare_models(results, **settings)).splitlines() for settings in options]
    for settings, lines in zip(options, expected, strict=True):
        argv = [text for name, value in settings.items() for text in (f"--{name}", value)]
        assert compare(capsys, *files, "--names", "x", "y", *argv).splitlines()[1 : 1 + len(lines)] == lines
    assert len(set(map(tuple, expected))) == 4


PATHS_AND_NAMES = {
    "runs/a/mvtec/wood/aupimo/aupimos.json runs/b/mvtec/wood/aupimo/aupimos.json": "a b",
    "a.json b.json": "a b",
    "a.v1.json a.v2.json": "a.v1 a.v2",
    "x/s.json x/y/s.json": "s y/s",
    "a/1/s.json a/2/s.json b/1/s.json": "a/1 a/2 b/1",
}


@pytest.mark.parametrize("paths", PATHS_AND_NAMES)
def test_names_are_what_tells_paths_apart(paths: str, tmp_path: Path) -> None:
    """What all paths have in common at the front and at the end is cut, as far as something remains of each."""
    files = [write_result(tmp_path / path, [0.1, 0.2]) for path in paths.split()]
    assert " ".join(compare_paths(files).order) == PATHS_AND_NAMES[paths]


def test_paths_may_be_texts_or_paths(tmp_path: Path) -> None:
    """Files and folders are given by `str` or `Path`, a folder also without a list, and written to either."""
    files = [write_result(tmp_path / "in" / name / "wood" / "aupimo" / "aupimos.json", [0.1, 0.2]) for name in "ab"]
    expected = compare_paths(files)
    for paths in ([files[0], str(files[1])], tmp_path / "in", str(tmp_path / "in"), [tmp_path / "in"]):
        assert compare_paths(paths).summary() == expected.summary()
    assert sorted(expected.save(str(tmp_path / "out"))) == sorted((tmp_path / "out").iterdir())


def test_a_benchmark_is_ranked_and_written(capsys: pytest.CaptureFixture[str], benchmark: Path, tmp_path: Path) -> None:
    """The mean of each model in each category is printed, and the ranking; the comparisons are in the text, too."""
    out = tmp_path / "out"
    lines = compare(capsys, benchmark, "--test", "ttest", "--alternative", "less", "--out", out).splitlines()
    results = {category: results_of(category) for category in ("screw", "zipper")}
    ranking = rank_models(results)
    assert lines[1].split()[1:-3] == ["screw", "zipper"]
    for line, model in zip(lines[2:5], ranking.order, strict=True):
        means = [*(results[category][model].mean for category in results), ranking.means[model]]
        assert line.split() == [model, *(f"{mean:.3f}" for mean in means), f"{ranking.average_ranks[model]:.2f}"]
    assert lines[6:11] == str(ranking).splitlines()
    text = (out / "comparison.txt").read_text(encoding="utf-8")
    assert text.splitlines()[: len(lines) - 2] == lines[:-2]
    for category, by_model in results.items():
        title, _, best, *_ = str(compare_models(by_model, "ttest", "less")).splitlines()
        assert f"{category}\n{title}\n" in text
        assert f"\n{best}\n" in text


PLAIN = "good.json lacking/a/wood lacking/b/tile one/a/wood unlike/a/tile unlike/a/wood unlike/b/wood undefined/a/wood"
FILES: dict[str, tuple[float, ...]] = {
    **dict.fromkeys([*PLAIN.split(), "undefined/a/tile", "undefined/b/tile"], (0.1, 0.2)),
    **dict.fromkeys(("more.json", "unlike/b/tile"), (0.1, 0.2, 0.3)),
    **dict.fromkeys(("nan.json", "undefined/b/wood"), (math.nan, math.nan)),
}
"""Scores of files, and of categories of models."""
WRONG_CALLS: dict[str, str] = {
    "there is none at missing.json": "good.json missing.json",
    "two results or more, or one benchmark folder": "good.json",
    "Expected distinct `--names` of 2 models, but got good, good": "good.json good.json",
    "distinct `--names` of 2 models, but got x\\.": "good.json more.json --names x",
    "distinct `--names` of 2 models, but got x, x": "good.json more.json --names x x",
    "distinct `--names` of 1 models, but got x, y": "one --names x y",
    "`--atol` to be at least 0, but got -1.0": "good.json good.json --names x y --atol -1",
}

BAD_FILES: dict[str, str] = {
    "could not read summary.json": "good.json summary.json",
    "could not read picture.png.* Give an aupimos.json, or the folder": "good.json picture.png",
    r"same `fpr_bounds`, but got \(1e-05, 0.0001\) in good.json and \(0.001, 0.01\) in bounds.json": (
        "good.json good.json bounds.json --names a b c"
    ),
    "'image 2' of 'more' .* fits none": "good.json more.json",
    "two images or more, but got 0": "nan.json nan.json --names x y",
    "in a folder of each, in good.json, empty, but got good": "good.json empty",
    "in empty, but got none": "empty",
    "in one, but got a": "one",
    r"each lacks some: tile \(missing: a\), wood \(missing: b\)": "lacking",
    "tile: Expected `results` to be of the same images": "unlike",
    "mean of 'b' on 'wood' is undefined": "undefined",
    "Expected `--out` to be a folder, but .*good.json is a file": "nan.json nan.json --names x y --out good.json",
    "Expected `--out` to be a folder, but .*more.json is a file": "nan.json nan.json --names x y --out more.json/below",
}
"""A part of each message, and the arguments; what cannot be written is told before what cannot be compared."""


@pytest.mark.parametrize("reason", [*WRONG_CALLS, *BAD_FILES])
def test_what_cannot_be_compared_is_refused(
    reason: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong call ends with code 2, and files that are wrong with code 1, in one line with the reason."""
    monkeypatch.chdir(tmp_path)
    for name, scores in FILES.items():
        write_result(Path(name) if name.endswith(".json") else Path(name, "aupimo", "aupimos.json"), scores)
    write_result(Path("bounds.json"), [0.1, 0.2], (1e-3, 1e-2))
    Path("summary.json").write_text("{}", encoding="utf-8")
    Path("picture.png").write_bytes(b"\x89PNG" + bytes(99))
    Path("empty").mkdir()
    arguments, code = (WRONG_CALLS[reason], 2) if reason in WRONG_CALLS else (BAD_FILES[reason], 1)
    assert main(["compare", "--out", "out", *arguments.split()]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.search(f"^aupimo compare: .*{reason}", err)
    assert not Path("out").exists()


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the same maps by several numbers of thresholds, by other masks, and without what says it."""
    masks = torch.zeros(12, 40, 40, dtype=torch.bool)
    masks[4:, 5:15, 5:15] = True
    wide = masks.clone()
    wide[4:, 4:16, 4:16] = True
    maps = torch.randn(masks.shape, generator=torch.Generator().manual_seed(0)) + 2 * masks
    scored = {name: (maps, masks, int(name)) for name in ("50", "300000")}
    scored |= dict.fromkeys(("official", "official2"), (maps, masks, 300000))
    scored |= {"exact": (maps, masks, None), "same": (maps + 1, masks, None), "wide": (maps, wide, None)}
    folder = tmp_path_factory.mktemp("unlike")
    for name, (scores, target, num_thresholds) in scored.items():
        metric = AUPIMO(num_thresholds, fpr_bounds=(1e-2, 1e-1))
        metric.update(scores, target, image_ids=[f"crack/{i}.png" for i in range(12)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few thresholds
            metric.result().save(folder / f"{name}.json")
    for name in ("official", "official2"):
        (folder / f"{name}.safetensors").unlink()
    return folder


def warned(folder: Path, names: Iterable[str]) -> list[str]:
    """Warnings of a comparison, which stand in its summary and in its JSON, too."""
    comparison = compare_paths([folder / f"{name}.json" for name in names])
    assert all(f"warning: {text}" in comparison.summary() for text in comparison.warnings)
    assert comparison.to_dict()["warnings"] == list(comparison.warnings)
    return list(comparison.warnings)


UNLIKE_THRESHOLDS = {
    "50 300000": "50 for 50; 300000 for 300000.",
    "50 300000 exact same": "50 for 50; 300000 for 300000; exact for exact, same.",
    "exact 300000": "exact for exact; 300000 for 300000.",
    "official exact": "unknown for official; exact for exact.",
    "official 50": "unknown for official; 50 for 50.",
    **dict.fromkeys(("exact same", "official official2", "official 300000"), ""),
}
"""Results, and what the warning says, if there is one."""


@pytest.mark.parametrize("names", UNLIKE_THRESHOLDS)
def test_unlike_numbers_of_thresholds_are_named(unlike: Path, names: str) -> None:
    """Each number stands with its models, and what a file does not say is unknown where it could matter."""
    text, lines = UNLIKE_THRESHOLDS[names], warned(unlike, names.split())
    assert len(lines) == bool(text)
    assert not text or f"not scored alike: `num_thresholds` is {text}" in lines[0]


def test_seeds_that_were_not_scored_alike_are_named(unlike: Path, tmp_path: Path) -> None:
    """A seed counts, too, though its model is shown by the mean over its seeds."""
    for source, place in (("exact", "a/seed0"), ("50", "a/seed1"), ("exact", "b"), ("same", "c")):
        AUPIMOResult.load(unlike / f"{source}.json").save(tmp_path / place / "tile/aupimo/aupimos.json")
    (line,) = compare_paths(tmp_path).warnings
    assert "`num_thresholds` is exact for a/seed0, b, c; 50 for a/seed1." in line


def test_unlike_masks_are_named(unlike: Path, tmp_path: Path) -> None:
    """A warning says that scores differ by the masks, as far as these are known."""
    for file in (*unlike.glob("exact.*"), *unlike.glob("wide.*")):
        shutil.copy(file, tmp_path)
    (line,) = warned(tmp_path, ["exact", "wide"])
    assert "not the same masks: 800 pixels are a defect for exact, 1,152 for wide" in line
    (tmp_path / "wide.safetensors").write_bytes(b"broken")
    with pytest.raises(BadDataError, match=r"wide.safetensors to hold .* remove it"):
        warned(tmp_path, ["exact", "wide"])
    (tmp_path / "wide.safetensors").unlink()
    (line,) = warned(tmp_path, ["exact", "wide"])
    assert "unknown for wide" in line
