"""`aupimo compare` writes for programs: JSON, CSV, LaTeX, and pictures of other formats."""

import csv
import json
import math
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from data_sets import compare, write_result

from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.compare import compare_paths

SCORES = {"old": [0.1, 0.2, 0.4], "new": [0.4, 0.3, 0.9], "third": [0.3, 0.1, 0.8]}


def save(path: Path, scores: list[float], **facts: Any) -> Path:
    """Write scores of defects to a result file, and return its path."""
    return write_result(path, scores, paths=[f"tile/test/crack/{index}.png" for index in range(len(scores))], **facts)


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
        save(folder / place / "aupimo/aupimos.json", SCORES[place[:3]])
    return folder


def strict_json(text: str) -> Any:
    """Parse JSON in which there is no NaN."""
    return json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


def test_json_of_files_holds_all_that_is_printed(capsys: pytest.CaptureFixture[str], files: list[Path]) -> None:
    """Standard output is the JSON of `to_dict` and nothing else, with each confidence and interval."""
    settings = {"test": "ttest", "alternative": "less", "atol": 0.01}
    comparison = compare_paths(files, **settings)
    argv = [text for name, value in settings.items() for text in (f"--{name}", value)]
    content = strict_json(compare(capsys, *files, *argv, "--json"))
    assert content == json.loads(json.dumps(comparison.to_dict()), parse_constant=lambda _: None)
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


def test_tables_of_a_benchmark(capsys: pytest.CaptureFixture[str], benchmark: Path, tmp_path: Path) -> None:
    """JSON, CSV and LaTeX say what is printed of each model in each category, and undefined numbers are blank or null.

    JSON has the ranking and what was skipped. In CSV numbers have all digits; a model has no confidence against itself.
    """
    out, comparison = tmp_path / "out", compare_paths(benchmark)
    content = strict_json(compare(capsys, benchmark, "--json", "--out", out))
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
    assert [line.split() for line in comparison.summary().splitlines()[2:4]] == rows


def test_quiet_prints_the_tables_only(
    capsys: pytest.CaptureFixture[str], benchmark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no bar on a terminal, no hint, and no line about what was written."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    summary = compare_paths(benchmark, quiet=True).summary()
    out = ("--out", str(tmp_path / "out"))
    assert compare(capsys, benchmark, "--quiet") == compare(capsys, benchmark, "--quiet", *out) == f"{summary}\n"
    assert main(["compare", str(benchmark), *out]) == 0
    printed, err = capsys.readouterr()
    assert "written to" in printed
    assert "comparing" in err
    assert "drawing" in err


BEGINNINGS = {"svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", BEGINNINGS)
def test_all_pictures_have_the_format(
    capsys: pytest.CaptureFixture[str], benchmark: Path, files: list[Path], tmp_path: Path, suffix: str
) -> None:
    """`--format` decides on suffix and content of every picture, and there are no others."""
    compare(capsys, *files, "--out", tmp_path / "files", "--format", suffix)
    compare(capsys, benchmark, "--out", tmp_path / "all", "--format", suffix)
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
    compare_paths(files).save(tmp_path)
    table = [line for line in (tmp_path / "comparison.tex").read_text().splitlines() if line.endswith(r"\\")]
    assert table[0] == r" & model & mean & rank & \#1 & \#2 & \#3 & 95\% interval of the mean \\"
    assert table[1].startswith(r"\#1 & new & 0.533 & 1.00 & - & ")
    assert table[3].startswith(r"\#3 & old & 0.233 & ")


def test_the_tables_say_what_they_are_of(files: list[Path], benchmark: Path, tmp_path: Path) -> None:
    """Order is by average rank for the Wilcoxon test and over categories, else by mean; a strict FPR is not hidden."""
    for test, order in (("wilcoxon", "average rank"), ("ttest", "mean")):
        assert compare_paths(files, test=test).summary().splitlines()[1].endswith(f"; ordered by {order}")
        of_several = compare_paths(benchmark, test=test)
        assert of_several.to_dict()["ordered_by"] == "average rank"
        lines = of_several.summary().splitlines()
        assert lines[0].endswith("; ordered by average rank over 2 categories")
        assert [line for line in lines if line.startswith("2 data sets") and line.endswith("; ordered by average rank")]
    strict = [save(tmp_path / f"{name}.json", SCORES[name], shared_fpr="max") for name in ("old", "new")]
    title = "AUPIMO, shared FPR 1e-05 to 0.0001 (maximum of per-image FPRs)\n"
    assert compare_paths(strict).summary().startswith(title)


def test_categories_matched_by_position_are_named(benchmark: Path, tmp_path: Path) -> None:
    """Where results of a category have no paths, the summary of several categories says so."""
    assert "position" not in compare_paths(benchmark).summary()
    shutil.copytree(benchmark, tmp_path, dirs_exist_ok=True)
    write_result(tmp_path / "old/wood/aupimo/aupimos.json", SCORES["old"])
    summary = compare_paths(tmp_path).summary()
    assert "\n\nimages matched by position, as not all results have paths: wood\n\n" in summary


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_all_is_written_before_anything_is_printed(
    option: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that is closed before the end loses no file."""
    written = []
    monkeypatch.setattr("builtins.print", lambda *_, **__: written.append(len(list((tmp_path / "out").iterdir()))))
    assert main(["compare", *map(str, files), "--out", str(tmp_path / "out"), option]) == 0
    assert written == [5]
