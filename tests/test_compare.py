"""`aupimo compare` says which model is better and what cannot be compared, sums up seeds, and writes for programs."""

import csv
import json
import math
import re
import shutil
import unicodedata
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from data_sets import strict_json, write_result
from matplotlib import pyplot as plt

from aupimo_torchmetrics import AUPIMO, AUPIMOResult
from aupimo_torchmetrics.compare import BadDataError, compare_paths
from aupimo_torchmetrics.statistics import compare_models, rank_models

A, B, C = [0.1, 0.5, 0.3, 0.9], [0.3, 0.4, 0.6, 1.0], [0.2, 0.9, 0.6, 0.5]
SCORES = {"old": [0.1, 0.2, 0.4], "new": [0.4, 0.3, 0.9], "third": [0.3, 0.1, 0.8]}


def save(place: Path, scores: list[float], category: str = "tile", **facts: Any) -> Path:
    """Write scores of a normal image and of defects to a file, or to that of a folder; return its path."""
    paths = [f"{category}/test/good/000.png", *(f"{category}/test/crack/{i:03}.png" for i in range(len(scores)))]
    file = place if place.suffix == ".json" else place / "aupimo/aupimos.json"
    return write_result(file, [math.nan, *scores], paths=paths, **facts)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Results of three models."""
    folder = tmp_path_factory.mktemp("files")
    return [save(folder / f"{name}.json", scores) for name, scores in SCORES.items()]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on two categories, and a third category that one of them lacks."""
    folder = tmp_path_factory.mktemp("benchmark")
    for place in ("old/tile", "old/wood", "new/tile", "new/wood", "old/zipper"):
        save(folder / place, SCORES[place[:3]])
    return folder


def test_files_of_models_are_compared(printed: Any, files: list[Path], tmp_path: Path) -> None:
    """The table is that of `compare_models` with the interval of each mean; models are named by their files.

    A folder is made, holds the printed table, two more tables and two pictures, and no figure stays open.
    """
    out, open_before = tmp_path / "new" / "folder", plt.get_fignums()
    told = printed("compare", *files, "--out", out)
    text = (out / "comparison.txt").read_text(encoding="utf-8")
    table = compare_models({file.stem: AUPIMOResult.load(file) for file in files})
    assert text.startswith(
        f"AUPIMO, shared FPR 1e-05 to 0.0001\n{table}\n\nOnly tests for these thresholds are possible"
    )
    names = ["comparison.txt", "comparison.csv", "comparison.tex", "confidence.png", "distribution.png"]
    assert told == f"{text}\nwritten to {out}: {', '.join(names)}\n"
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert plt.get_fignums() == open_before


OPTIONS: list[dict[str, Any]] = [
    {"test": "ttest"},
    {"alternative": "less"},
    {"alternative": "two-sided"},
    {"atol": 0.06},
]


def test_options_reach_the_comparison(printed: Any, tmp_path: Path) -> None:
    """Test, alternative, tolerance and names change the table as they change `compare_models`."""
    scores = {"a": [0.1, 0.5, 0.9, 0.7, 0.3], "b": [0.2, 0.45, 1.0, 0.8, 0.4]}
    files = [save(tmp_path / f"{name}.json", each) for name, each in scores.items()]
    results = {name: AUPIMOResult.load(file) for name, file in zip("xy", files, strict=True)}
    expected = [str(compare_models(results, **settings)).splitlines() for settings in OPTIONS]
    for settings, lines in zip(OPTIONS, expected, strict=True):
        argv = [text for name, value in settings.items() for text in (f"--{name}", value)]
        assert printed("compare", *files, "--names", "x", "y", *argv).splitlines()[1 : 1 + len(lines)] == lines
    assert len(set(map(tuple, expected))) == 4


def test_a_benchmark_is_ranked_and_written(printed: Any, benchmark: Path, tmp_path: Path) -> None:
    """The mean of each model in each category is printed, and the ranking; the comparisons are in the text, too."""
    out = tmp_path / "out"
    lines = printed("compare --test ttest --alternative less", benchmark, "--out", out).splitlines()
    results = compare_paths(benchmark).results
    ranking = rank_models(results)
    assert lines[1].split()[1:-3] == ["tile", "wood"]
    for line, model in zip(lines[2:4], ranking.order, strict=True):
        means = [*(results[category][model].mean for category in results), ranking.means[model]]
        assert line.split() == [model, *(f"{mean:.3f}" for mean in means), f"{ranking.average_ranks[model]:.2f}"]
    assert lines[5:9] == str(ranking).splitlines()
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
    reason: str, aupimo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    *found, err = aupimo(f"compare --out out {arguments}")
    assert (found, err.count("\n")) == ([code, ""], 1)
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


FOUND = [
    ("a/tile a/wood b/tile b/wood", ".", "tile: a, b; wood: a, b"),
    ("runs/a/mvtec/tile runs/b/mvtec/tile", "runs", "tile: a, b"),
    ("a/mvtec/tile a/visa/tile b/mvtec/tile b/visa/tile", ".", "mvtec/tile: a, b; visa/tile: a, b"),
    ("runs/a/x/tile runs/b/x/tile runs/b/x/wood", "runs/a/x runs/b/x", "tile: a, b"),  # named by what tells them apart
    ("a b", "a b", ": a, b"),  # without a category
    ("a b", "a/aupimo b/aupimo", ": a, b"),
    ("a b/tile", "a b", "tile: a, b"),
    ("a/tile b/tile", "a/tile/aupimo/aupimos.json b --names a b", "tile: a, b"),  # a file, and a folder
    ("a/tile b/tile", "a/../a b", "tile: a, b"),
    ("a/tile b/tile .cache/tile a/.wood b/.wood", ".", "tile: a, b"),  # hidden folders are no data
    (
        "a/seed0/x/tile a/seed1/x/tile b/x/Seed-10/tile b/x/seed_2/tile",
        ".",
        "tile: a/seed0, a/seed1, b/seed2, b/seed10",
    ),
    ("a/tile/seed1 d/seed0", "a d", "tile: a/seed1, d/seed0"),
    ("d/seed0 d/seed1", "d/seed0 d/seed1", ": seed0, seed1"),  # folders that are given are models, whatever their names
    *((f"a/{name}/tile b/{name}/tile", ".", "tile: a, b") for name in ("seeds", "seed0b", "myseed0", "0", "seedling1")),
    # files are named by what is left where all have the same in front and behind, as far as something is left of each
    ("a.json b.json", "a.json b.json", ": a, b"),
    ("a.v1.json a.v2.json", "a.v1.json a.v2.json", ": a.v1, a.v2"),
    ("x/s.json x/y/s.json", "x/s.json x/y/s.json", ": s, y/s"),
    ("a/1/s.json a/2/s.json b/1/s.json", "a/1/s.json a/2/s.json b/1/s.json", ": a/1, a/2, b/1"),
]
"""Where results lie, what is given, and what is compared: categories, and their models and seeds."""


@pytest.mark.parametrize(("places", "given", "expected"), FOUND)
def test_what_is_found(places: str, given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Categories and models are folders, or files; seeds may lie above or below categories and collections."""
    monkeypatch.chdir(tmp_path)
    for place in places.split():
        save(Path(place), A)
    paths, _, names = given.partition(" --names ")
    comparison = compare_paths(paths.split() if " " in paths else paths, names.split() or None)
    found = []
    for category, by_model in comparison.seed_means.items():
        runs = [f"{model}/{seed}" for model in by_model for seed in by_model[model] or [""]]
        found.append(f"{category}: {', '.join(run.removesuffix('/') for run in runs)}")
    assert "; ".join(found) == expected


def test_categories_that_a_model_or_seed_lacks_are_skipped(printed: Any, tmp_path: Path) -> None:
    """Deviations are of the same categories for all seeds, so that a run that broke off is named, too.

    Scores without the folder of a category are not taken for one of several categories.
    """
    for folder in ("a/seed0/tile", "a/seed1/tile", "a/seed0/wood", "b/tile", "b/wood", "b/cable", "c"):
        save(tmp_path / folder, A)
    a, b, c = (tmp_path / name for name in "abc")
    comparison = compare_paths([a, b])
    assert list(comparison.results) == ["tile"]
    assert comparison.missing == {"cable": ("a/seed0", "a/seed1"), "wood": ("a/seed1",)}
    note = "skipped, as not all models have it: cable (missing: a/seed0, a/seed1), wood (missing: a/seed1)"
    assert comparison.skipped == note
    assert note in printed("compare", a, b)
    with pytest.raises(BadDataError, match=r"lacks some: \(without a folder\) \(missing: b\), cable \(missing: c\)"):
        compare_paths([c, b])


GIVE_TWO = "Give the folders of two models or more"
REFUSED = {
    "categories of one model": ("wood tile", GIVE_TWO),
    "seeds of one model": ("seed1/tile seed0/tile", GIVE_TWO),
    "a single category": (".", GIVE_TWO),
    "a model without a category": ("a/tile b/tile c", GIVE_TWO),
    "results with and without a seed": ("b/tile a/seed0/tile a/tile", "clear what"),
    "a seed twice": ("b/tile a/seed1/tile a/seed_01/tile", "clear what"),
    "a seed above and below its category": ("b/tile a/seed1/tile a/tile/seed1", "clear what"),
    "with and without a category": ("b/tile a a/tile", "clear what"),
}
"""Where results lie, of which the error names the last, and what it says."""


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_benchmark_is_refused(tmp_path: Path, case: str) -> None:
    """Categories and seeds of one model are not compared with each other, nor is a file of which it is not clear what.

    The error names a file and says what to give.
    """
    folders, message = REFUSED[case]
    *_, file = [save(tmp_path / folder, A) for folder in folders.split()]
    with pytest.raises(BadDataError, match=message) as caught:
        compare_paths(tmp_path)
    assert str(file) in str(caught.value)


def test_folders_without_a_result_are_named(printed: Any, tmp_path: Path) -> None:
    """A model or a seed of which there is no result is not passed over in silence."""
    for name in ("a/tile", "b/seed0/tile", "b/seed1/tile"):
        save(tmp_path / name, A)
    for name in ("c/tile", "b/seed2/tile"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "c/tile/aupimos.json").write_text("{}")  # not where `evaluate` writes it
    comparison = compare_paths(tmp_path)
    assert comparison.order == ("a", "b")
    assert comparison.to_dict()["warnings"] == ["there is no result in c, b/seed2, which the comparison lacks"]
    assert "\nwarning: there is no result in c, b/seed2, which the comparison lacks\n" in printed("compare", tmp_path)
    assert "no result in b/seed2, " in compare_paths([tmp_path / "a", tmp_path / "b"]).warnings[0]


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """A benchmark of two categories: a model with three seeds, one with one seed, and one without."""
    root = tmp_path / "bench"
    for category in ("tile", "wood"):
        for seed, more in (("seed0", 0.0), ("seed_1", 0.02), ("Seed-10", 0.04)):
            save(root / "padim" / seed / category, [score + more for score in A[:3]], category)
        save(root / "uflow" / "seed0" / category, B[:3], category)
        save(root / "stfpm" / category, C[:3], category)
    return root


def test_seeds_are_summed_up(seeds: Path) -> None:
    """A model's score of an image is the mean over its seeds, and the deviation that of the means of the seeds."""
    comparison = compare_paths(seeds)
    assert list(comparison.results) == ["tile", "wood"]
    expected = {"padim": [score + 0.02 for score in A[:3]], "stfpm": C[:3], "uflow": B[:3]}
    results, means = comparison.results["tile"], comparison.seed_means["wood"]
    assert list(results) == list(expected)
    for name, scores in expected.items():
        assert results[name].aupimos.tolist() == pytest.approx([math.nan, *scores], nan_ok=True)
        assert results[name].paths == results["stfpm"].paths
    assert [list(means[name]) for name in expected] == [["seed0", "seed1", "seed10"], [], ["seed0"]]
    assert list(means["padim"].values()) == pytest.approx([0.3, 0.32, 0.34])
    for category in (["tile"], []):
        deviations = [comparison.seed_std(name, *category) for name in expected]
        assert deviations == pytest.approx([0.02, math.nan, math.nan], nan_ok=True)
    by_hand = {name: AUPIMOResult(torch.tensor(each), (1e-5, 1e-4), (0, 1)) for name, each in expected.items()}
    assert comparison.comparisons["tile"].confidence == pytest.approx(compare_models(by_hand).confidence)


def test_deviations_over_all_categories_are_of_the_mean_of_each_seed(tmp_path: Path) -> None:
    """Where seeds are good on different categories, their means over the categories hardly differ."""
    scores = np.random.default_rng(0).uniform(size=(4, 3, 5))
    for seed, by_category in enumerate(scores):
        for category, each in zip(("tile", "wood", "cable"), by_category, strict=True):
            save(tmp_path / "a" / f"seed{seed}" / category, each.tolist(), category)
            save(tmp_path / "b" / category, (each / 2).tolist(), category)
    comparison = compare_paths([tmp_path / "a", tmp_path / "b"])
    assert comparison.seed_std("a") == pytest.approx(scores.mean((1, 2)).std(ddof=1))
    assert comparison.to_dict()["ranking"]["models"][0]["mean"] == pytest.approx(scores.mean())


def test_tables_show_seeds(printed: Any, seeds: Path, tmp_path: Path) -> None:
    """Mean, deviation and names of seeds are printed and written; a single seed has no deviation."""
    _, about, *lines = printed("compare", seeds, "--out", tmp_path / "out").splitlines()
    assert "standard deviation over seeds (uflow: seed0; padim: seed0, seed1, seed10)" in about
    rows = {name: cells for name, *cells in map(str.split, lines[:4])}
    assert rows["model"] == ["tile", "wood", "mean", "average", "rank"]
    assert rows["uflow"][:-1] == ["0.433", "(-)"] * 3
    assert rows["padim"][:-1] == ["0.320", "(0.020)"] * 3
    assert rows["stfpm"][:-1] == ["0.567"] * 3
    latex = (tmp_path / "out" / "comparison.tex").read_text(encoding="utf-8")
    assert "padim & 0.320 (0.020) & 0.320 (0.020) & 0.320 (0.020) & 3.00" in latex
    table = pd.read_csv(tmp_path / "out" / "comparison.csv").set_index(["category", "model"]).loc["tile"]
    assert table.loc["padim", ["std", "seeds_seed1"]].tolist() == pytest.approx([0.02, 0.32])
    assert table.loc[["uflow", "stfpm"], ["std", "seeds_seed1"]].isna().all(axis=None)
    models = {each["model"]: each for each in json.loads(printed("compare --json", seeds))["categories"][0]["models"]}
    assert models["padim"]["std"] == pytest.approx(0.02)
    assert models["padim"]["seeds"] == pytest.approx({"seed0": 0.3, "seed1": 0.32, "seed10": 0.34})
    assert (models["uflow"]["std"], models["stfpm"]["std"], models["stfpm"]["seeds"]) == (None, None, {})


def test_seeds_of_other_images_are_refused(tmp_path: Path) -> None:
    """Seeds must be of the same images, classes and bounds; the error names category and seeds."""
    save(tmp_path / "b" / "tile", B)
    save(tmp_path / "a" / "seed0" / "tile", A)
    others: dict[str, dict[str, Any]] = {
        r"^tile: .*003.png' of 'a/seed0' .* fits none": {"scores": A[:3]},
        r"^tile: .*'tile/test/crack/003.png' is normal \(NaN\) for 'a/seed1'": {"scores": [*A[:3], math.nan]},
        r"same `fpr_bounds`, but got .*seed0.* and .*seed1": {"scores": A, "fpr_bounds": (1e-3, 1e-2)},
    }
    for message, facts in others.items():
        save(tmp_path / "a" / "seed1" / "tile", **facts)
        with pytest.raises(BadDataError, match=message):
            compare_paths(tmp_path)


def test_json_of_files_holds_all_that_is_printed(printed: Any, files: list[Path]) -> None:
    """Standard output is the JSON of `to_dict` and nothing else, with each confidence and interval."""
    comparison = compare_paths(files, test="ttest", alternative="less", atol=0.01)
    content = strict_json(printed("compare --test ttest --alternative less --atol 0.01 --json", *files))
    assert content == json.loads(json.dumps(comparison.to_dict()), parse_constant=lambda _: None)
    settings = {"test": "ttest", "alternative": "less", "atol": 0.01}
    assert content["settings"] == {"fpr_bounds": [1e-5, 1e-4], "shared_fpr": "mean", **settings}
    assert (content["metric"], content["ordered_by"], content["ranking"]) == ("AUPIMO", "mean", None)
    assert (content["skipped"], content["models"]) == ([], ["new", "third", "old"])
    (category,) = content["categories"]
    assert (category["category"], category["num_images"], category["matched_by"]) == ("", 3, "path")
    (of_files,) = comparison.comparisons.values()
    for each in category["models"]:
        name = each["model"]
        assert (each["mean"], each["average_rank"]) == (of_files.means[name], of_files.average_ranks[name])
        assert each["interval"] == [None if math.isnan(end) else end for end in of_files.intervals[name]]
        others = [other for other in of_files.order if other != name]
        assert each["confidence"] == {other: of_files.confidence[name, other] for other in others}


def test_tables_of_a_benchmark(printed: Any, benchmark: Path, tmp_path: Path) -> None:
    """JSON, CSV and LaTeX say what is printed of each model in each category, and undefined numbers are blank or null.

    JSON has the ranking and what was skipped. In CSV numbers have all digits; a model has no confidence against itself.
    """
    out, comparison = tmp_path / "out", compare_paths(benchmark)
    content = strict_json(printed("compare --json", benchmark, "--out", out))
    assert [each["category"] for each in content["categories"]] == ["tile", "wood"]
    assert content["skipped"] == [{"category": "zipper", "missing": ["new"]}]
    assert content["ranking"]["p_value"] is None  # two models only
    assert [each["model"] for each in content["ranking"]["models"]] == content["models"] == ["new", "old"]
    assert content["ranking"]["models"][0]["ranks"] == {"tile": 1, "wood": 1}
    assert content["ordered_by"] == "average rank"

    with (out / "comparison.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [f"{row['category']}/{row['model']}" for row in table] == ["tile/new", "tile/old", "wood/new", "wood/old"]
    tile, row = comparison.comparisons["tile"], table[0]
    assert (float(row["mean"]), float(row["average_rank"])) == (tile.means["new"], 1)
    assert all(map(math.isnan, tile.intervals["new"]))  # of three images
    assert (row["interval_lower"], row["interval_upper"]) == ("", "")
    assert float(row["confidence_against_old"]) == tile.confidence["new", "old"]
    assert (row["confidence_against_new"], row["std"], row["num_images"]) == ("", "", "3")

    title, begin, _, *lines = (out / "comparison.tex").read_text().splitlines()
    assert title == "% AUPIMO, shared FPR 1e-05 to 0.0001; ordered by average rank over 2 categories"
    assert begin == r"\begin{tabular}{lrrrr}"
    rows = [["new", "0.533", "0.533", "0.533", "1.00"], ["old", "0.233", "0.233", "0.233", "2.00"]]
    expected = [["model", "tile", "wood", "mean", "average rank"], *rows]
    assert [line for line in lines if line.endswith(r"\\")] == [rf"{' & '.join(cells)} \\" for cells in expected]


def test_quiet_prints_the_tables_only(
    aupimo: Any, printed: Any, benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no bar on a terminal, no hint, and no line about what was written."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    summary, out = compare_paths(benchmark, quiet=True).summary(), tmp_path / "out"
    for more in ((), ("--out", out)):
        assert printed("compare --quiet", benchmark, *more) == f"{summary}\n"
    code, loud, err = aupimo("compare", benchmark, "--out", out)
    assert (code, "written to" in loud, "comparing" in err, "drawing" in err) == (0, True, True, True)


BEGINNINGS = {"svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", BEGINNINGS)
def test_all_pictures_have_the_format(
    printed: Any, benchmark: Path, files: list[Path], tmp_path: Path, suffix: str
) -> None:
    """`--format` decides on suffix and content of every picture, and there are no others."""
    printed(f"compare --format {suffix} --out", tmp_path / "files", *files)
    printed(f"compare --format {suffix} --out", tmp_path / "all", benchmark)
    written = [path for out in ("files", "all") for path in (tmp_path / out).rglob("*.*") if path.stem != "comparison"]
    expected = "all/ranks all/tile/confidence all/wood/confidence files/confidence files/distribution"
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {f"{n}.{suffix}" for n in expected.split()}
    assert all(path.read_bytes().startswith(BEGINNINGS[suffix]) for path in written)


def test_an_unknown_format_is_refused(files: list[Path], tmp_path: Path) -> None:
    """Nothing is written in a format that is not known."""
    with pytest.raises(ValueError, match="`picture_format` to be 'png' or 'svg' or 'pdf', but got 'jpg'"):
        compare_paths(files).save(tmp_path / "out", "jpg")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


NFD = unicodedata.normalize("NFD", "tür")
LATEX_NAMES = {
    "uflow_ext": r"uflow\_ext",
    "50% & #1 $": r"50\% \& \#1 \$",
    "{a}": r"\{a\}",
    "~^": r"\textasciitilde{}\textasciicircum{}",
    "a\\b": r"a\textbackslash{}b",
    "[0] *": "{[}0{]} {*}",
    "a\nb\tc": "a b c",
    NFD: unicodedata.normalize("NFC", NFD),
    "b\udcff": "b ",
}
"""How names are written that LaTeX would not print as they are, one of which UTF-8 cannot write."""


def test_latex_prints_names_as_they_are(files: list[Path], tmp_path: Path) -> None:
    """Characters with a meaning in LaTeX are escaped; there is a row for each model, with what is printed of it."""
    compare_paths([files[0]] * len(LATEX_NAMES), [*LATEX_NAMES]).save(tmp_path)
    latex = (tmp_path / "comparison.tex").read_text(encoding="utf-8")
    assert all(f" & {expected} & 0.233 & " in latex for expected in LATEX_NAMES.values())
    for name in ("txt", "csv"):
        assert r"b\udcff" in (tmp_path / f"comparison.{name}").read_text(encoding="utf-8")
    assert sorted(compare_paths(files).save(str(tmp_path))) == sorted(tmp_path.iterdir())
    table = [line for line in (tmp_path / "comparison.tex").read_text().splitlines() if line.endswith(r"\\")]
    assert table[0] == r" & model & mean & rank & \#1 & \#2 & \#3 & 95\% interval of the mean \\"
    assert table[1].startswith(r"\#1 & new & 0.533 & 1.00 & - & ")
    assert table[3].startswith(r"\#3 & old & 0.233 & ")


@pytest.mark.parametrize(("test", "order"), [("wilcoxon", "average rank"), ("ttest", "mean")])
def test_the_tables_say_by_what_they_are_ordered(files: list[Path], benchmark: Path, test: Any, order: str) -> None:
    """Order is by average rank for the Wilcoxon test and over categories, else by mean."""
    assert compare_paths(files, test=test).summary().splitlines()[1].endswith(f"; ordered by {order}")
    of_several = compare_paths(benchmark, test=test)
    assert of_several.to_dict()["ordered_by"] == "average rank"
    lines = of_several.summary().splitlines()
    assert lines[0].endswith("; ordered by average rank over 2 categories")
    assert [line for line in lines if line.startswith("2 data sets") and line.endswith("; ordered by average rank")]


def test_a_strict_fpr_is_not_hidden(tmp_path: Path) -> None:
    """The title says how the FPR is shared if it is not by the mean."""
    strict = [save(tmp_path / f"{name}.json", SCORES[name], shared_fpr="max") for name in ("old", "new")]
    title = "AUPIMO, shared FPR 1e-05 to 0.0001 (maximum of per-image FPRs)\n"
    assert compare_paths(strict).summary().startswith(title)


def test_categories_matched_by_position_are_named(benchmark: Path, tmp_path: Path) -> None:
    """Where results of a category have no paths, the summary of several categories says so."""
    assert "position" not in compare_paths(benchmark).summary()
    shutil.copytree(benchmark, tmp_path, dirs_exist_ok=True)
    write_result(tmp_path / "old/wood/aupimo/aupimos.json", [math.nan, *SCORES["old"]])
    summary = compare_paths(tmp_path).summary()
    assert "\n\nimages matched by position, as not all results have paths: wood\n\n" in summary


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_all_is_written_before_anything_is_printed(
    option: str, aupimo: Any, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that is closed before the end loses no file."""
    written = []
    monkeypatch.setattr("builtins.print", lambda *_, **__: written.append(len(list((tmp_path / "out").iterdir()))))
    assert aupimo(f"compare {option} --out", tmp_path / "out", *files) == (0, "", "")
    assert written == [5]
