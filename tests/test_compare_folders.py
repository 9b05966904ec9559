"""`aupimo compare` takes folders of models, and sums up their seeds."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from aupimo_torchmetrics import AUPIMOResult
from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.compare import BadDataError, compare_paths
from aupimo_torchmetrics.statistics import compare_models

BOUNDS = (1e-5, 1e-4)
A, B, C = [0.1, 0.5, 0.3, 0.9], [0.3, 0.4, 0.6, 1.0], [0.2, 0.9, 0.6, 0.5]


def save(folder: Path, scores: list[float], category: str = "tile", bounds: tuple[float, float] = BOUNDS) -> Path:
    """Write scores of a normal image and of defects to `aupimo/aupimos.json` in a folder, and return its path."""
    paths = [f"{category}/test/good/000.png", *(f"{category}/test/crack/{i:03}.png" for i in range(len(scores)))]
    path = folder / "aupimo" / "aupimos.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tensor = torch.tensor([math.nan, *scores], dtype=torch.float64)
    AUPIMOResult(tensor, bounds, (0.0, 1.0), paths=paths).save(path)
    return path


def scores_of(result: AUPIMOResult) -> list[float]:
    """Scores of the defects."""
    return [score for score in result.aupimos.tolist() if not math.isnan(score)]


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Run `aupimo compare`, which must go well and say nothing on standard error, and return what it prints."""
    assert main(["compare", *map(str, argv)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_folders_of_two_models_are_compared_on_common_categories(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Models are named by what tells their folders apart, and categories that one of them lacks are named."""
    for category in ("tile", "wood", "cable"):
        save(tmp_path / "runs" / "old" / "scores" / category, A, category)
    for category in ("wood", "tile", "zipper"):
        save(tmp_path / "runs" / "new" / "scores" / category, B, category)
    folders = [tmp_path / "runs" / name / "scores" for name in ("old", "new")]
    comparison = compare_paths(folders)
    assert list(comparison.results) == list(comparison.comparisons) == ["tile", "wood"]
    assert list(comparison.results["wood"]) == ["old", "new"]
    assert scores_of(comparison.results["wood"]["new"]) == B
    assert comparison.missing == {"cable": ("new",), "zipper": ("old",)}
    out = run(capsys, *folders)
    assert "skipped, as not all models have it: cable (missing: new), zipper (missing: old)\n" in out
    assert list(compare_paths(folders, names=["x", "y"]).results["tile"]) == ["x", "y"]


def test_folders_of_a_single_category_are_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The scores may lie in the folder itself, in that of the only category, or in the given folder `aupimo`."""
    save(tmp_path / "a", A)
    save(tmp_path / "b", B)
    save(tmp_path / "c" / "tile", C)
    comparison = compare_paths([tmp_path / "a", tmp_path / "b"])
    assert list(comparison.results) == [""]
    assert list(comparison.results[""]) == ["a", "b"]
    assert comparison.ranking is None
    for folders in (["a", "c"], ["c", "a"]):
        assert list(compare_paths([tmp_path / name for name in folders]).results) == ["tile"]
    assert list(compare_paths([tmp_path / "a" / "aupimo", tmp_path / "b" / "aupimo"]).results[""]) == ["a", "b"]
    files = [tmp_path / name / "aupimo" / "aupimos.json" for name in "ab"]
    assert run(capsys, tmp_path / "a", tmp_path / "b") == run(capsys, *files)


def test_categories_without_a_folder_are_no_category_of_several(tmp_path: Path) -> None:
    """Scores without the folder of a category are not taken for one of several categories."""
    save(tmp_path / "a", A)
    for category in ("tile", "wood"):
        save(tmp_path / "b" / category, B, category)
    with pytest.raises(
        BadDataError, match=r"each lacks some: \(without a folder\) \(missing: b\), tile \(missing: a\)"
    ):
        compare_paths([tmp_path / "a", tmp_path / "b"])
    save(tmp_path / "b", B)
    with pytest.raises(BadDataError, match=r"not clear what .*aupimos.json and .*aupimos.json are of"):
        compare_paths([tmp_path / "a", tmp_path / "b"])


def test_relative_paths_name_models_by_the_folders_they_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.` and `..` are folders with names."""
    for name, scores in (("a", A), ("b", B)):
        save(tmp_path / name / "tile", scores)
    monkeypatch.chdir(tmp_path / "a")
    assert list(compare_paths([".", "../b"]).results["tile"]) == ["a", "b"]
    monkeypatch.chdir(tmp_path / "a" / "tile")
    assert list(compare_paths(["..", "../../b"]).results["tile"]) == ["a", "b"]


def test_files_among_folders_are_refused(tmp_path: Path) -> None:
    """The error names a folder and a file."""
    file = save(tmp_path / "a" / "tile", A)
    save(tmp_path / "b" / "tile", B)
    with pytest.raises(ValueError, match=f"got a folder among 2: {tmp_path / 'b'} is a folder and {file} a file"):
        compare_paths([file, tmp_path / "b"])
    with pytest.raises(ValueError, match=f"there is none at {tmp_path / 'c'}"):
        compare_paths([tmp_path / "a", tmp_path / "c"])
    (tmp_path / "c").mkdir()
    with pytest.raises(
        BadDataError, match=f"CATEGORY/aupimo/aupimos.json or .* in {tmp_path / 'c'}, but there is none"
    ):
        compare_paths([tmp_path / "a", tmp_path / "c"])


def test_a_folder_of_one_model_is_no_benchmark(tmp_path: Path) -> None:
    """Categories and seeds of one model are not compared with each other; the error says what to give."""
    save(tmp_path / "out" / "tile", A)
    save(tmp_path / "out" / "wood", A, "wood")
    for seed in ("seed0", "seed1"):
        for category in ("tile", "wood"):
            save(tmp_path / "seeds" / seed / category, A, category)
    save(tmp_path / "single", A)
    for name, there in (("out", "tile/aupimo, wood/aupimo"), ("seeds", "seed0/tile/aupimo, "), ("single", "aupimo:")):
        with pytest.raises(BadDataError, match=f"but got 0. There is {there}.* give the folders of two models or more"):
            compare_paths(tmp_path / name)
    for model in "ab":
        save(tmp_path / "mixed" / model / "tile", A)
    save(tmp_path / "mixed" / "c", A)
    with pytest.raises(BadDataError, match=r"but got 2 \(a\) \(b\)\. There is c/aupimo: "):
        compare_paths(tmp_path / "mixed")


def test_folders_without_a_result_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A model or a seed of which there is no result is not passed over in silence."""
    for name in ("a/tile", "b/seed0/tile", "b/seed1/tile"):
        save(tmp_path / name, A)
    (tmp_path / "c" / "tile").mkdir(parents=True)
    (tmp_path / "c" / "tile" / "aupimos.json").write_text("{}")  # not where `evaluate` writes it
    (tmp_path / "b" / "seed2" / "tile").mkdir(parents=True)
    comparison = compare_paths(tmp_path)
    assert comparison.order == ("a", "b")
    assert comparison.to_dict()["warnings"] == ["there is no result in c, b/seed2, which the comparison lacks"]
    assert "\nwarning: there is no result in c, b/seed2, which the comparison lacks\n" in run(capsys, tmp_path)
    assert "no result in b/seed2, " in compare_paths([tmp_path / "a", tmp_path / "b"]).warnings[0]


@pytest.mark.parametrize("name", ["summary.json", "images.csv", "report.html"])
def test_other_files_of_an_evaluation_lead_to_its_folder(tmp_path: Path, name: str) -> None:
    """Who gives the file of a table is told to give the folder, and that is right."""
    for model in "ab":
        save(tmp_path / model / "tile", A)
        (tmp_path / model / name).touch()
    with pytest.raises(ValueError, match=f"but got {tmp_path / 'a' / name}. Give its folder, {tmp_path / 'a'}"):
        compare_paths([tmp_path / "a" / name, tmp_path / "b" / name])
    assert list(compare_paths([tmp_path / "a", tmp_path / "b"]).results) == ["tile"]


def test_hidden_folders_are_no_data(tmp_path: Path) -> None:
    """Folders that begin with a dot are neither models nor categories."""
    for name in ("a/tile", "b/tile", ".cache/tile", "a/.wood", "b/.wood"):
        save(tmp_path / name, A)
    comparison = compare_paths(tmp_path)
    assert {category: list(by_model) for category, by_model in comparison.results.items()} == {"tile": ["a", "b"]}


def test_images_of_folders_are_matched_whatever_the_format_of_maps(tmp_path: Path) -> None:
    """Results that name images by maps of other formats and places compare."""
    save(tmp_path / "a" / "tile", A)
    path = save(tmp_path / "b" / "tile", B[::-1])
    result = AUPIMOResult.load(path)
    paths = [rf"D:\mvtec\{(name or '')[:-4]}.npy" for name in result.paths or []]
    paths[1:] = paths[:0:-1]
    AUPIMOResult(result.aupimos, BOUNDS, (0.0, 1.0), paths=paths).save(path)
    comparison = compare_paths([tmp_path / "a", tmp_path / "b"])
    expected = {"a": AUPIMOResult(torch.tensor(A), BOUNDS, (0, 1)), "b": AUPIMOResult(torch.tensor(B), BOUNDS, (0, 1))}
    assert comparison.comparisons["tile"].average_ranks == compare_models(expected).average_ranks


def test_other_bounds_are_named_with_their_files(tmp_path: Path) -> None:
    """Results of other FPR bounds are refused with the values and the files, also among many."""
    first = save(tmp_path / "a" / "tile", A)
    save(tmp_path / "b" / "tile", B)
    for model in "ab":
        other = save(tmp_path / model / "wood", C, "wood", bounds=(1e-3, 1e-2) if model == "b" else BOUNDS)
    with pytest.raises(BadDataError) as caught:
        compare_paths(tmp_path)
    assert f"same `fpr_bounds`, but got (1e-05, 0.0001) in {first} and (0.001, 0.01) in {other}" in str(caught.value)


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
    assert list(comparison.results["tile"]) == ["padim", "stfpm", "uflow"]
    assert scores_of(comparison.results["tile"]["padim"]) == pytest.approx([score + 0.02 for score in A[:3]])
    assert comparison.results["tile"]["padim"].paths == comparison.results["tile"]["stfpm"].paths
    means = comparison.seed_means["wood"]
    assert list(means["padim"]) == ["seed0", "seed_1", "Seed-10"]
    assert list(means["padim"].values()) == pytest.approx([0.3, 0.32, 0.34])
    assert list(means["uflow"]) == ["seed0"]
    assert means["stfpm"] == {}
    for category in ("tile", None):
        assert comparison.seed_std("padim", category) == pytest.approx(0.02)
        assert math.isnan(comparison.seed_std("uflow", category))
        assert math.isnan(comparison.seed_std("stfpm", category))
    expected = {"padim": AUPIMOResult(torch.tensor(A[:3]) + 0.02, BOUNDS, (0.0, 1.0))} | {
        model: AUPIMOResult(torch.tensor(scores[:3]), BOUNDS, (0.0, 1.0))
        for model, scores in (("stfpm", C), ("uflow", B))
    }
    assert comparison.comparisons["tile"].confidence == pytest.approx(compare_models(expected).confidence)


def test_deviations_over_all_categories_are_of_the_mean_of_each_seed(tmp_path: Path) -> None:
    """Where seeds are good on different categories, their means over the categories hardly differ."""
    rng = np.random.default_rng(0)
    by_seed = []
    for seed in range(4):
        by_category = {category: rng.uniform(size=5).tolist() for category in ("tile", "wood", "cable")}
        for category, scores in by_category.items():
            save(tmp_path / "a" / f"seed{seed}" / category, scores, category)
            save(tmp_path / "b" / category, rng.uniform(size=5).tolist(), category)
        by_seed.append(statistics.fmean(statistics.fmean(scores) for scores in by_category.values()))
    comparison = compare_paths([tmp_path / "a", tmp_path / "b"])
    assert comparison.seed_std("a") == pytest.approx(np.std(by_seed, ddof=1))
    assert comparison.to_dict()["ranking"]["models"][0]["mean"] == pytest.approx(
        max(statistics.fmean(by_seed), comparison.ranking.means["b"]) if comparison.ranking else None
    )


def test_tables_show_seeds(capsys: pytest.CaptureFixture[str], seeds: Path, tmp_path: Path) -> None:
    """Mean, deviation and names of seeds are printed and written; a single seed has no deviation."""
    out = run(capsys, seeds, "--out", tmp_path / "out")
    table = out.split("mean score (standard deviation over seeds)")[1].splitlines()[1:5]
    assert [line.split() for line in table] == [
        ["model", "seeds", "tile", "wood", "all", "categories"],
        ["uflow", "1:", "seed0", "0.433", "(-)", "0.433", "(-)", "0.433", "(-)"],
        ["padim", "3:", "seed0,", "seed_1,", "Seed-10", *["0.320", "(0.020)"] * 3],
        ["without", "seeds:", "stfpm"],
    ]
    assert "ranks, tests and intervals are of each image's mean over the seeds" in out
    latex = (tmp_path / "out" / "comparison.tex").read_text(encoding="utf-8")
    assert "padim & 0.320 (0.020) & 0.320 (0.020) & 0.320 (0.020) & 3.00" in latex
    rows = (tmp_path / "out" / "comparison.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("category,model,mean,std,num_seeds,")
    cells = {row.split(",")[1]: row.split(",")[2:5] for row in rows if row.startswith("tile,")}
    assert float(cells["padim"][1]) == pytest.approx(0.02)
    assert [cells["padim"][2], cells["uflow"][1:], cells["stfpm"][1:]] == ["3", ["", "1"], ["", ""]]
    models = {each["model"]: each for each in json.loads(run(capsys, seeds, "--json"))["categories"][0]["models"]}
    assert models["padim"]["std"] == pytest.approx(0.02)
    assert models["padim"]["seeds"] == pytest.approx({"seed0": 0.3, "seed_1": 0.32, "Seed-10": 0.34})
    assert (models["uflow"]["std"], models["stfpm"]["std"], models["stfpm"]["seeds"]) == (None, None, {})


def test_seeds_are_found_wherever_their_folder_stands(tmp_path: Path) -> None:
    """Seeds may lie above or below categories and collections, in given folders and without categories."""
    for seed in ("seed0", "seed1"):
        for name in (f"a/{seed}/mvtec/tile", f"b/mvtec/{seed}/tile", f"c/mvtec/tile/{seed}"):
            save(tmp_path / "bench" / name, A)
        save(tmp_path / "d" / seed, A)
    comparison = compare_paths(tmp_path / "bench")
    assert {model: list(by_seed) for model, by_seed in comparison.seed_means["tile"].items()} == {
        model: ["seed0", "seed1"] for model in "abc"
    }
    both = compare_paths([tmp_path / "bench" / "a", tmp_path / "d"])
    assert list(both.results) == ["tile"]
    assert list(both.seed_means["tile"]["d"]) == ["seed0", "seed1"]
    # Folders that are given are models, whatever they are called.
    assert list(compare_paths([tmp_path / "d" / seed for seed in ("seed0", "seed1")]).results[""]) == ["seed0", "seed1"]


@pytest.mark.parametrize("name", ["seeds", "seed", "seed0b", "myseed0", "0", "run0", "seedling1"])
def test_only_seed_and_a_number_is_a_seed(tmp_path: Path, name: str) -> None:
    """Other folders are categories or collections."""
    for model in "ab":
        save(tmp_path / model / name / "tile", A)
        save(tmp_path / model / "other" / "tile", A)
    comparison = compare_paths(tmp_path)
    assert sorted(comparison.results) == sorted([f"{name}/tile", "other/tile"])
    assert comparison.seed_means["other/tile"] == {"a": {}, "b": {}}


def test_a_category_that_a_seed_lacks_is_skipped(tmp_path: Path) -> None:
    """Deviations are of the same categories for all seeds, so that a run that broke off is named."""
    for seed in ("seed0", "seed1"):
        save(tmp_path / "a" / seed / "tile", A)
    save(tmp_path / "a" / "seed0" / "wood", A, "wood")
    for category in ("tile", "wood"):
        save(tmp_path / "b" / category, B, category)
    comparison = compare_paths(tmp_path)
    assert comparison.missing == {"wood": ("a/seed1",)}
    assert comparison.skipped == "skipped, as not all models have it: wood (missing: a/seed1)"
    assert list(comparison.results) == ["tile"]


UNCLEAR_SEEDS = {
    "results with and without a seed": ["a/seed0/tile", "a/tile"],
    "a seed twice": ["a/seed1/tile", "a/seed_01/tile"],
    "a seed above and below its category": ["a/seed1/tile", "a/tile/seed1"],
    "a seed in a seed": ["a/seed1/seed2/tile"],
}


@pytest.mark.parametrize("case", UNCLEAR_SEEDS)
def test_unclear_seeds_are_refused(tmp_path: Path, case: str) -> None:
    """Where it is not clear which seed a file is of, the error names it."""
    for folder in [*UNCLEAR_SEEDS[case], "b/tile"]:
        path = save(tmp_path / folder, A)
    with pytest.raises(BadDataError, match="clear what") as caught:
        compare_paths(tmp_path)
    assert str(tmp_path / UNCLEAR_SEEDS[case][-1] / "aupimo" / path.name) in str(caught.value)


def test_seeds_of_other_images_are_refused(tmp_path: Path) -> None:
    """Seeds must be of the same images, classes and bounds; the error names category and seeds."""
    save(tmp_path / "b" / "tile", B)
    save(tmp_path / "a" / "seed0" / "tile", A)
    save(tmp_path / "a" / "seed1" / "tile", A[:3])
    with pytest.raises(BadDataError, match=r"^tile: .*got 5 of 'a/seed0' and 4 of 'a/seed1'"):
        compare_paths(tmp_path)
    save(tmp_path / "a" / "seed1" / "tile", [*A[:3], math.nan])
    with pytest.raises(BadDataError, match=r"^tile: .*'tile/test/crack/003.png' is normal \(NaN\) for 'a/seed1'"):
        compare_paths(tmp_path)
    save(tmp_path / "a" / "seed1" / "tile", A, bounds=(1e-3, 1e-2))
    with pytest.raises(BadDataError, match=r"same `fpr_bounds`, but got .*seed0.* and .*seed1"):
        compare_paths(tmp_path)
