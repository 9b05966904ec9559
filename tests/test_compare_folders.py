"""`aupimo compare` takes folders of models, and sums up their seeds."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from data_sets import compare, write_result

from aupimo_torchmetrics import AUPIMOResult
from aupimo_torchmetrics.compare import BadDataError, compare_paths
from aupimo_torchmetrics.statistics import compare_models

A, B, C = [0.1, 0.5, 0.3, 0.9], [0.3, 0.4, 0.6, 1.0], [0.2, 0.9, 0.6, 0.5]


def save(folder: Path, scores: list[float], category: str = "tile", **facts: Any) -> Path:
    """Write scores of a normal image and of defects to `aupimo/aupimos.json` in a folder, and return its path."""
    paths = [f"{category}/test/good/000.png", *(f"{category}/test/crack/{i:03}.png" for i in range(len(scores)))]
    return write_result(folder / "aupimo" / "aupimos.json", [math.nan, *scores], paths=paths, **facts)


FOUND = [
    ("a/tile a/wood b/tile b/wood", ".", "tile: a, b; wood: a, b"),
    ("a/mvtec/tile b/mvtec/tile", ".", "tile: a, b"),
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
]
"""Where results lie, what is given, and what is compared: categories, and their models and seeds."""


@pytest.mark.parametrize(("folders", "given", "expected"), FOUND)
def test_what_is_found(
    folders: str, given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Categories and models are folders; seeds may lie above or below categories and collections."""
    monkeypatch.chdir(tmp_path)
    for folder in folders.split():
        save(Path(folder), A)
    paths, _, names = given.partition(" --names ")
    found = []
    for category, by_model in compare_paths(paths.split(), names.split() or None).seed_means.items():
        runs = [f"{model}/{seed}" for model in by_model for seed in by_model[model] or [""]]
        found.append(f"{category}: {', '.join(run.removesuffix('/') for run in runs)}")
    assert "; ".join(found) == expected


def test_categories_that_a_model_or_seed_lacks_are_skipped(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
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
    assert note in compare(capsys, a, b)
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


def test_folders_without_a_result_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A model or a seed of which there is no result is not passed over in silence."""
    for name in ("a/tile", "b/seed0/tile", "b/seed1/tile"):
        save(tmp_path / name, A)
    for name in ("c/tile", "b/seed2/tile"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "c/tile/aupimos.json").write_text("{}")  # not where `evaluate` writes it
    comparison = compare_paths(tmp_path)
    assert comparison.order == ("a", "b")
    assert comparison.to_dict()["warnings"] == ["there is no result in c, b/seed2, which the comparison lacks"]
    assert "\nwarning: there is no result in c, b/seed2, which the comparison lacks\n" in compare(capsys, tmp_path)
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
        assert [score for score in results[name].aupimos.tolist() if not math.isnan(score)] == pytest.approx(scores)
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


def test_tables_show_seeds(capsys: pytest.CaptureFixture[str], seeds: Path, tmp_path: Path) -> None:
    """Mean, deviation and names of seeds are printed and written; a single seed has no deviation."""
    _, about, *lines = compare(capsys, seeds, "--out", tmp_path / "out").splitlines()
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
    models = {each["model"]: each for each in json.loads(compare(capsys, seeds, "--json"))["categories"][0]["models"]}
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
