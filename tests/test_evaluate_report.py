"""What an evaluation prints and writes: named by image, for people and for programs, complete, and never in silence."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult, functional
from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.evaluate import BadFile, BadFilesError, Evaluation, evaluate
from aupimo_torchmetrics.evaluate import output as output_module
from aupimo_torchmetrics.evaluate.bad_files import bad_file_lines
from aupimo_torchmetrics.evaluate.data.layouts import LabelledImage
from aupimo_torchmetrics.evaluate.output import folder_names
from aupimo_torchmetrics.evaluate.reading import LoadedPair, PairReader
from aupimo_torchmetrics.plotting import plot_heatmaps

BOUNDS = (1e-2, 1e-1)
CLI_BOUNDS = ("--fpr-bounds", "1e-2", "1e-1")
SIZE = (20, 24)

Types = Mapping[str, int]
"""How many images there are of each type of defect, or of `good`."""


def write_set(
    folder: Path, categories: Mapping[str, Types], suffix: str = ".tiff", size: tuple[int, int] = SIZE
) -> tuple[Path, Path]:
    """Write a data set in the layout of MVTec AD and a map for each image; return the folders of maps and of data."""
    random = np.random.default_rng(0)
    maps, data = folder / "maps", folder / "data"
    for category, types in categories.items():
        for defect, count in types.items():
            for number in range(count):
                mask = np.zeros(size, dtype=np.uint8)
                if defect != "good":
                    mask[4 : 9 + number, 5:12] = 255
                    write_image(data / f"{category}/ground_truth/{defect}/{number:03}_mask.png", mask)
                write_image(data / f"{category}/test/{defect}/{number:03}.png", np.full((*size, 3), 90, dtype=np.uint8))
                scores = random.normal(size=size) + (0.8 + 0.4 * number) * (mask > 0)
                write_map(maps / f"{category}/test/{defect}/{number:03}{suffix}", scores.astype(np.float32))
    return maps, data


def write_image(path: Path, pixels: NDArray[Any]) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_map(path: Path, scores: NDArray[Any]) -> None:
    """Write a map as TIFF or NPY."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, scores)
    else:
        tifffile.imwrite(path, scores)


def spoil(folder: Path, kind: str) -> None:
    """Write NaN to all maps of a category and type of defect, given as `bottle/test/good`."""
    for path in (folder / kind).iterdir():
        tifffile.imwrite(path, np.full(SIZE, np.nan, dtype=np.float32))


TWO = {"bottle": {"good": 3, "crack": 2, "hole": 2}, "screw": {"good": 3, "scratch": 2}}


def strict(text: str) -> Any:
    """Read JSON that holds no NaN and no infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def names_of(root: Path) -> list[str]:
    """Paths of all files in a folder, sorted."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


@pytest.mark.parametrize("suffix", [".tiff", ".npy"])
@pytest.mark.parametrize("prefix", ["", "mvtec"])
def test_images_are_named_by_their_path_in_the_data_set(tmp_path: Path, suffix: str, prefix: str) -> None:
    """Results, tables and messages name the image, whatever its map file is called and wherever it lies."""
    maps, data = write_set(tmp_path, {"bottle": {"good": 2, "crack": 3}}, suffix)
    if prefix:
        (tmp_path / prefix).mkdir()
        maps.rename(tmp_path / prefix / "inner")
        maps = tmp_path / prefix
        (maps / "inner").rename(maps / "deep")
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    evaluation.save(tmp_path / "out")
    expected = [f"bottle/test/crack/{n:03}.png" for n in range(3)] + [f"bottle/test/good/{n:03}.png" for n in range(2)]
    assert evaluation.categories[0].result.paths == expected
    assert AUPIMOResult.load(tmp_path / "out/bottle/aupimo/aupimos.json").paths == expected
    assert [row["path"] for row in read_rows(tmp_path / "out/images.csv")] == expected


def test_table_of_images_holds_what_the_result_says(tmp_path: Path) -> None:
    """`images.csv` has a row for each image of each category, with the numbers of `to_dataframe` and of its map."""
    maps, data = write_set(tmp_path, TWO)
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    evaluation.save(tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/images.csv")
    assert list(table) == [
        "path",
        "category",
        "defect",
        "is_anomalous",
        "mask_pixels",
        "aupimo",
        "tpr_at_lower",
        "tpr_at_upper",
        "num_pixels",
        "mask_share",
        "max_score",
    ]
    assert len(table) == 12
    expected = pd.concat([scores.result.to_dataframe() for scores in evaluation.categories], ignore_index=True)
    for column in ("path", "is_anomalous", "mask_pixels"):
        assert table[column].tolist() == expected[column].tolist()
    for column in ("aupimo", "tpr_at_lower", "tpr_at_upper"):
        # pandas 2 reads some numbers with other last bits than were written
        np.testing.assert_allclose(table[column].to_numpy(), expected[column].to_numpy(), rtol=1e-14)
    assert table["aupimo"].isna().tolist() == (~table["is_anomalous"]).tolist()
    for row in table.itertuples():
        scores = tifffile.imread(maps / str(row.path).replace(".png", ".tiff"))
        assert row.max_score == pytest.approx(scores.max(), rel=1e-12)
        assert row.num_pixels == scores.size
        assert row.mask_share == pytest.approx(row.mask_pixels / scores.size, rel=1e-14)
        assert str(row.path).split("/")[:3:2] == [row.category, row.defect]


@pytest.mark.parametrize("name", ["Flasche_ä_瓶", 'a, "quoted" name', "plain"])
def test_table_of_images_opens_whatever_names_it_holds(tmp_path: Path, name: str) -> None:
    """Names with commas, quotes and other letters come back, and Excel is told of UTF-8 where it matters."""
    maps, data = write_set(tmp_path, {name: {"good": 1, "crack": 1}})
    evaluate(maps, data, fpr_bounds=BOUNDS).save(tmp_path / "out")
    content = (tmp_path / "out/images.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf") == (not name.isascii())
    assert pd.read_csv(tmp_path / "out/images.csv")["category"].tolist() == [name, name]
    (category,) = strict((tmp_path / "out/summary.json").read_text(encoding="utf-8"))["categories"]
    assert category["category"] == name
    assert name in (tmp_path / "out/summary.json").read_text(encoding="utf-8").replace('\\"', '"')


def test_summary_for_programs_is_complete_and_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`summary.json` holds settings, versions, scores, counts, warnings and skipped files; `--json` prints it alone."""
    maps, data = write_set(tmp_path, {**TWO, "tile": {"good": 2}, "wood": {"good": 1, "crack": 1}})
    for path in (maps / "wood").rglob("*.tiff"):
        path.unlink()
    (maps / "screw/test/scratch/001.tiff").write_bytes(b"no map")
    arguments = [str(maps), "--data", str(data), *CLI_BOUNDS, "--metrics", "auroc", "aupro", "--skip-bad", "--json"]
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    summary = strict(printed)
    assert summary == strict((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, metrics=("auroc", "aupro"), skip_bad=True)
    by_name = {each["category"]: each for each in summary["categories"]}
    assert list(by_name) == ["bottle", "screw", "tile"]
    for scores in evaluation.categories:
        for name, value in scores.values().items():
            assert by_name[scores.category][name] == (None if math.isnan(value) else value)
    counts = ("num_normal", "num_anomalous", "num_skipped")
    assert [[by_name[name][count] for count in counts] for name in by_name] == [[3, 4, 0], [3, 1, 1], [2, 0, 0]]
    assert [each["defect"] for each in by_name["bottle"]["defects"]] == ["crack", "hole"]
    assert by_name["bottle"]["defects"][0]["num_anomalous"] == 2
    assert summary["mean"]["aupimo"] == pytest.approx((by_name["bottle"]["aupimo"] + by_name["screw"]["aupimo"]) / 2)
    assert summary["num_categories_in_mean"] == {"aupimo": 2, "auroc": 2, "aupro": 2}
    assert summary["without_maps"] == ["wood"]
    assert [each["path"] for each in summary["skipped"]] == ["screw/test/scratch/001.tiff"]
    assert {each["category"] for each in summary["warnings"]} == {"tile"}
    assert summary["settings"]["fpr_bounds"] == list(BOUNDS)
    assert summary["settings"]["data"] == str(data)
    assert {"python", "torch", "aupimo_torchmetrics"} <= set(summary["versions"])
    assert summary["protocol"].startswith("AUPIMO, exact")


def test_without_a_score_there_is_json_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An undefined score is null, standard output holds nothing but JSON, and the code is 1."""
    maps, data = write_set(tmp_path, {"bottle": {"crack": 4}})
    assert main(["evaluate", str(maps), "--data", str(data), "--json"]) == 1
    printed, error = capsys.readouterr()
    summary = strict(printed)
    assert summary["mean"] == {"aupimo": None}
    assert summary["categories"][0]["num_anomalous"] == 4
    assert "no score came out" in error


@pytest.mark.parametrize(
    ("types", "counts"),
    [({"crack": 4}, ["0", "4"]), ({"good": 3}, ["3", "0"]), ({"good": 3, "crack": 1, "hole": 1}, ["3", "2"])],
)
def test_counts_come_from_the_classes(tmp_path: Path, types: Types, counts: list[str]) -> None:
    """The table counts normal and anomalous images right, also where no image has a score."""
    maps, data = write_set(tmp_path, {"bottle": types})
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    assert evaluation.summary().splitlines()[1].split()[1:3] == counts


def test_means_say_of_how_many_categories(tmp_path: Path) -> None:
    """Undefined scores are NaN in every metric, and a mean leaves them out and says of how many categories it is."""
    maps, data = write_set(tmp_path, {**TWO, "tile": {"good": 2}, "wood": {"crack": 2}})
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, metrics=("auroc", "aupr", "aupro"))
    assert all(math.isnan(value) for value in evaluation.categories[2].values().values())
    assert math.isnan(evaluation.categories[3].values()["aupimo"])
    assert not math.isnan(evaluation.categories[3].values()["auroc"])
    rows = {line.split("  ")[0]: line for line in evaluation.summary().splitlines()}
    assert rows["mean of"].split()[2:] == ["2", "of", "4", *["3", "of", "4"] * 3]
    shown = [float(value) for value in rows["mean"].split()[1:]]
    assert shown == pytest.approx([mean for mean, _ in evaluation.means().values()], abs=1e-4)
    defined = [scores.values()["auroc"] for scores in evaluation.categories if scores.category != "tile"]
    assert evaluation.means()["auroc"] == (pytest.approx(sum(defined) / 3), 3)
    alone = evaluate(maps, data, fpr_bounds=BOUNDS).summary()
    assert "\nmean of" in alone
    write_set(tmp_path / "whole", TWO)
    assert "\nmean of" not in evaluate(tmp_path / "whole/maps", tmp_path / "whole/data", fpr_bounds=BOUNDS).summary()


def test_rows_by_defect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--by defect` adds a row for each type of defect, with its number of images and the mean of their scores."""
    maps, data = write_set(tmp_path, TWO)
    assert main(["evaluate", str(maps), "--data", str(data), *CLI_BOUNDS, "--by", "defect"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:7]] == [
        "category",
        "bottle",
        "crack",
        "hole",
        "screw",
        "scratch",
        "mean",
    ]
    bottle = evaluate(maps, data, fpr_bounds=BOUNDS).categories[0]
    rows = {row["defect"]: [] for row in bottle.image_rows()}
    for row in bottle.image_rows():
        rows[row["defect"]].append(row["aupimo"])
    for line in lines[2:4]:
        name, count, score = line.split()
        assert count == "2"
        assert float(score) == pytest.approx(sum(rows[name]) / 2, abs=1e-4)
    with pytest.raises(ValueError, match="`by` to be 'category' or 'defect', but got 'image'"):
        evaluate(maps, data, fpr_bounds=BOUNDS).summary("image")


def test_quiet_says_no_more_than_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--quiet` prints the table without hints, and shows no bar even on a terminal."""
    maps, data = write_set(tmp_path, TWO)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    arguments = ["evaluate", str(maps), "--data", str(data), *CLI_BOUNDS]
    assert main(arguments) == 0
    loud = capsys.readouterr()
    assert "12/12" in loud.err
    assert "screw" in loud.err
    assert main([*arguments, "--quiet"]) == 0
    still = capsys.readouterr()
    assert still.err == ""
    assert loud.out == f"{still.out}Nothing was written: --out DIR keeps scores, curves and pictures.\n"


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.slow
def test_a_closed_pipe_loses_nothing(tmp_path: Path, more: list[str]) -> None:
    """Who reads no line of the output gets all files, no traceback and code 0."""
    maps, data = write_set(tmp_path, TWO)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "aupimo_torchmetrics", "evaluate", str(maps), "--data", str(data), *CLI_BOUNDS]
    done = subprocess.run(  # noqa: S603
        [*command, "--out", str(tmp_path / "out"), *more], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
    assert {"images.csv", "summary.json", "screw/aupimo/curves.png"} <= set(names_of(tmp_path / "out"))


def test_a_folder_with_other_results_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run into a folder says which files it replaces, and which of another run it leaves."""
    maps, data = write_set(tmp_path, {**TWO, "tile": {"good": 2, "crack": 2}})
    out = ["--out", str(tmp_path / "out")]
    arguments = ["evaluate", str(maps), "--data", str(data), *CLI_BOUNDS, *out]
    assert main([*arguments, "--metrics", "auroc", "--report"]) == 0
    assert "earlier" not in capsys.readouterr().out
    for path in (maps / "tile").rglob("*.tiff"):
        path.unlink()
    assert main([*arguments, "--format", "svg"]) == 0
    printed = capsys.readouterr().out
    assert "Replaced 8 files of an earlier evaluation: bottle, screw, images.csv, summary.json\n" in printed
    assert "Left of an earlier evaluation, and not of this one: bottle/aupimo/curves.png, " in printed
    saved = evaluate(maps, data, fpr_bounds=BOUNDS).save(tmp_path / "out", picture_format="svg")
    kept = [f"{name}/{file}" for name in ("bottle", "screw") for file in ("aupimo/curves.png", "auroc.json")]
    kept += [f"{name}/aupimo/distribution.png" for name in ("bottle", "screw")]
    assert saved.left == sorted([*kept, "report.html", "tile/aupimo/aupimos.json"])
    assert sorted(saved.replaced) == sorted(saved.written)


@pytest.mark.parametrize("picture_format", ["png", "svg", "pdf"])
def test_pictures_in_each_format(tmp_path: Path, picture_format: str) -> None:
    """All pictures are of the format that was asked for."""
    maps, data = write_set(tmp_path, {"bottle": TWO["bottle"]})
    out = tmp_path / "out"
    arguments = [str(maps), "--data", str(data), *CLI_BOUNDS, "--out", str(out), "--heatmaps"]
    assert main(["evaluate", *arguments, "--format", picture_format]) == 0
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    pictures = [path for path in out.rglob("*") if path.suffix[1:] in starts]
    assert sorted(path.name for path in pictures) == [
        f"{name}.{picture_format}" for name in ("curves", "distribution", "heatmaps")
    ]
    assert all(path.read_bytes().startswith(starts[picture_format]) for path in pictures)


def renamed(evaluation: Evaluation, names: list[str]) -> Evaluation:
    """Return the evaluation with other names of its categories."""
    pairs = zip(evaluation.categories, names, strict=True)
    return replace(evaluation, categories=[replace(scores, category=name) for scores, name in pairs])


@pytest.mark.parametrize(
    "names",
    [
        ["..", "."],
        ["a/b", "a_b"],
        ["../../x", "..\\..\\x"],
        ["/tmp/abs", "C:\\abs"],  # noqa: S108
        ["", " "],
        ["images.csv", "summary.json"],
        ["Bottle", "bottle"],
        ["a\0b", "a\nb"],
    ],
)
@pytest.mark.slow
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, names: list[str]) -> None:
    """Whatever categories are called, each has one folder of its own inside of `out`, and `summary.json` says which."""
    maps, data = write_set(tmp_path / "in", TWO)
    before = names_of(tmp_path)
    out = tmp_path / "deep/er/out"
    renamed(evaluate(maps, data, fpr_bounds=BOUNDS), names).save(out)
    written = [name for name in names_of(tmp_path) if name not in before]
    assert all(name.startswith("deep/er/out/") for name in written)
    categories = strict((out / "summary.json").read_text(encoding="utf-8"))["categories"]
    assert [each["category"] for each in categories] == names
    folders = [each["folder"] for each in categories]
    assert len({folder.lower() for folder in folders}) == 2
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == sorted(folders)
    for folder in folders:
        assert (out / folder / "aupimo/aupimos.json").is_file()


def test_common_names_stay_as_they_are() -> None:
    """Folders have the names of their categories where these can be names of folders."""
    names = ["bottle", "metal nut", "3d-ad", "Flasche_ä", "..hidden"]
    assert list(folder_names(names).values()) == names


def test_a_folder_that_cannot_be_is_told_before_maps_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be written, nothing is read either."""
    maps, data = write_set(tmp_path, TWO)
    (tmp_path / "file").touch()
    monkeypatch.setattr(PairReader, "read", lambda *_: pytest.fail("a map was read"))
    for out in (tmp_path / "file", tmp_path / "file/below/it"):
        assert main(["evaluate", str(maps), "--data", str(data), "--out", str(out)]) == 1
        assert "`--out` to be a folder, but" in capsys.readouterr().err


@pytest.mark.parametrize("after", [0, 1, 3])
def test_ctrl_c_while_writing_says_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """What was written before is named and complete, and nothing else is there."""
    maps, data = write_set(tmp_path, TWO)
    calls: list[None] = []
    original = output_module.OutputFolder.write_text

    def stop_after(*args: Any) -> None:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(None)
        original(*args)

    monkeypatch.setattr(output_module.OutputFolder, "write_text", stop_after)
    out = tmp_path / "out"
    arguments = [str(maps), "--data", str(data), *CLI_BOUNDS, "--out", str(out), "--metrics", "auroc"]
    assert main(["evaluate", *arguments]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"aupimo evaluate: stopped; written to {out} before: bottle (")
    assert ("screw (" in error) == (after > 0)
    assert ("images.csv" in error) == (after > 2)
    assert error.endswith("nothing else was")
    assert ("images.csv" in names_of(out)) == (after > 2)
    assert "summary.json" not in names_of(out)
    assert not [name for name in names_of(out) if "unfinished" in name]


def test_a_picture_that_cannot_be_drawn_loses_no_score(tmp_path: Path) -> None:
    """A map that can no longer be read is an error, after scores, tables and the page were written."""
    maps, data = write_set(tmp_path, {"bottle": TWO["bottle"]})
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    for path in (maps / "bottle/test/crack").iterdir():
        path.write_bytes(b"no map")
    with pytest.raises(ValueError, match="not a TIFF"):
        evaluation.save(tmp_path / "out", heatmaps=True, report=True)
    assert {"images.csv", "summary.json", "report.html", "bottle/aupimo/aupimos.json"} <= set(
        names_of(tmp_path / "out")
    )


def test_heat_maps_over_photographs_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn over grey, and say so; all other pictures and the page are there."""
    captions: list[str] = []

    def noted(*args: Any) -> Any:
        captions.extend(args[5])
        return plot_heatmaps(*args)

    monkeypatch.setattr(output_module, "plot_heatmaps", noted)
    maps, data = write_set(tmp_path, TWO)
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    for path in (data / "bottle/test/crack").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    evaluation.save(tmp_path / "out", heatmaps=True, report=True)
    assert {"report.html", "bottle/aupimo/heatmaps.png", "screw/aupimo/heatmaps.png"} <= set(names_of(tmp_path / "out"))
    assert any("image cannot be read" in " ".join(each.split()) for each in captions)
    assert not all("image cannot be read" in " ".join(each.split()) for each in captions)


def test_heat_maps_of_images_that_are_not_on_disk(tmp_path: Path) -> None:
    """Where a table names images that are absent, heat maps are drawn over grey."""
    maps, data = write_set(tmp_path, {"bottle": TWO["bottle"]})
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    (scores,) = evaluation.categories
    absent = [pair._replace(image=pair.image._replace(path=None)) for pair in scores.pairs]
    replace(evaluation, categories=[replace(scores, pairs=absent)]).save(tmp_path / "out", heatmaps=True)
    assert (tmp_path / "out/bottle/aupimo/heatmaps.png").is_file()


def test_constant_maps_get_no_false_advice(tmp_path: Path) -> None:
    """Where no bounds can be resolved, none are named."""
    maps, data = write_set(tmp_path, {"part": {"good": 2, "crack": 2}})
    for path in maps.rglob("*.tiff"):
        tifffile.imwrite(path, np.zeros(SIZE, dtype=np.float32))
    (text,) = evaluate(maps, data).categories[0].warnings
    assert "cannot be resolved" in text
    assert "`fpr_bounds=" not in text


def test_one_cause_is_one_line(tmp_path: Path) -> None:
    """Hundreds of bad files of one cause are a line with their number and some names; the attribute has all."""
    maps, data = write_set(tmp_path, {"bottle": {"good": 40, "crack": 30}, "screw": {"good": 2, "scratch": 2}})
    for path in sorted((maps / "bottle/test/good").iterdir())[1:]:
        path.unlink()
    for path in sorted((data / "bottle/ground_truth/crack").iterdir())[1:]:
        path.unlink()
    with pytest.raises(BadFilesError) as caught:
        evaluate(maps, data)
    assert len(caught.value.bad_files) == 39 + 29
    head, *lines = str(caught.value).splitlines()
    assert head.startswith("68 files cannot be evaluated (`skip_bad=True` goes on without them")
    assert len(lines) == 2
    assert any("39 files" in line and line.count("test/good/") == 3 and "(and 36 more)" in line for line in lines)
    assert any("29 files" in line and "(and 26 more)" in line for line in lines)


@pytest.mark.parametrize("count", [1, 2, 10, 11, 500])
def test_every_bad_file_is_listed_once(count: int) -> None:
    """Few files have a line each, many one together; a file with two reasons has one line, with both."""
    same = [BadFile(f"good/{number:03}.png", "an image without a map") for number in range(count)]
    other = [
        BadFile(f"a b/{number:03}.png", f"the map is ({number}, 10), its mask ({number + 7}, 12) in /x y/{number}.png")
        for number in range(count)
    ]
    lines = bad_file_lines([*same, *other, *same])
    assert len(lines) == (2 * count if count <= 10 else 2)
    if count > 10:
        assert all(line.startswith(f"{count} files") and f"(and {count - 3} more)" in line for line in lines)
        assert lines[1].count("the map is (0, 10)") == lines[1].count("the map is") == 1
    both = bad_file_lines([*same, BadFile(same[0].path, "twice in the table")])
    assert both[-1 if count > 1 and count <= 10 else 0].count("good/") >= 1
    assert sum("good/000.png: an image without a map; and twice in the table" in line for line in both) == 1


def test_one_warning_of_many_categories_is_one_line(tmp_path: Path) -> None:
    """A warning that differs only in numbers is printed once, with how many categories it is of."""
    maps, data = write_set(tmp_path, {f"part{number}": {"good": 2 + number, "crack": 1} for number in range(6)})
    evaluation = evaluate(maps, data)
    (line,) = [line for line in evaluation.summary().splitlines() if line.startswith("warning: ")]
    assert line.startswith(
        "warning: part0, part1, part2, ... (and 3 more): AUPIMO is uncertain. The FPR bounds (1e-05,"
    )
    assert line.endswith("(The numbers are those of part0.)")
    assert len(evaluation.to_dict()["warnings"]) == 6


LOST = {
    "all normal": (["bottle/test/good"], "all 3 normal images of bottle"),
    "all anomalous": (
        ["bottle/test/crack", "bottle/test/hole"],
        "all 4 anomalous images of bottle",
    ),
    "all of a category": (
        ["screw/test/good", "screw/test/scratch"],
        "all 3 normal images of screw and all 2 anomalous images of screw",
    ),
}


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("skip_bad", [True, False])
def test_no_class_of_images_is_skipped_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, skip_bad: bool
) -> None:
    """Where bad files are all images of a class of a category, it stops, says so and why, and nothing is written."""
    maps, data = write_set(tmp_path, TWO)
    folders, expected = LOST[kind]
    for folder in folders:
        spoil(maps, folder)
    with pytest.raises(BadFilesError) as caught:
        evaluate(maps, data, fpr_bounds=BOUNDS, skip_bad=skip_bad)
    assert f"(`skip_bad=True` cannot go on without them: it would skip {expected})" in str(caught.value)
    assert str(caught.value).count("NaN in the map") == len(caught.value.bad_files)
    arguments = [str(maps), "--data", str(data), "--out", str(tmp_path / "out"), *["--skip-bad"] * skip_bad]
    assert main(["evaluate", *arguments]) == 1
    assert "`--skip-bad` cannot go on without them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_some_of_each_class_may_be_skipped(tmp_path: Path) -> None:
    """With one normal and one anomalous image left, the others may be skipped, and each category counts its own."""
    maps, data = write_set(tmp_path, TWO)
    spoil(maps, "bottle/test/hole")
    for number in (1, 2):
        (maps / f"bottle/test/good/00{number}.tiff").unlink()
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, skip_bad=True)
    assert [scores.num_skipped for scores in evaluation.categories] == [4, 0]
    assert [(scores.num_normal, scores.num_anomalous) for scores in evaluation.categories] == [(1, 2), (3, 2)]
    assert evaluation.summary().count("skipped: ") == 4


def test_a_class_that_is_not_there_is_not_skipped(tmp_path: Path) -> None:
    """Bad files of the only class of a category may be skipped, and a category without any map does not matter."""
    maps, data = write_set(tmp_path, {"bottle": {"crack": 3}, "screw": TWO["screw"], "tile": TWO["bottle"]})
    (maps / "bottle/test/crack/000.tiff").write_bytes(b"no map")
    for path in (maps / "tile").rglob("*.tiff"):
        path.unlink()
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, skip_bad=True)
    assert evaluation.without_maps == ["tile"]
    assert [scores.num_skipped for scores in evaluation.categories] == [1, 0]


def test_a_category_whose_masks_are_all_missing_is_not_one_without_maps(tmp_path: Path) -> None:
    """A category that has maps is never said to have none."""
    maps, data = write_set(tmp_path, {"bottle": {"crack": 3}, "screw": TWO["screw"]})
    for path in (data / "bottle/ground_truth/crack").iterdir():
        path.unlink()
    with pytest.raises(BadFilesError, match="all 3 anomalous images of bottle"):
        evaluate(maps, data, fpr_bounds=BOUNDS, skip_bad=True)


@pytest.mark.parametrize("has_masks", [True, False])
def test_folders_of_normal_images_by_another_name_are_not_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], has_masks: bool
) -> None:
    """A folder taken for defects whose images have no masks or empty ones may be that of the normal images."""
    maps, data = write_set(tmp_path, {"bottle": {"clean ones": 3, "crack": 2}, "screw": TWO["screw"]})
    for path in (data / "bottle/ground_truth/clean ones").iterdir():
        if has_masks:
            write_image(path, np.zeros(SIZE, dtype=np.uint8))
        else:
            path.unlink()
    (data / "screw/ground_truth/scratch/000_mask.png").unlink()
    assert main(["evaluate", str(maps), "--data", str(data), *CLI_BOUNDS, "--skip-bad"]) == 1
    head = capsys.readouterr().err.splitlines()[0]
    assert (
        "4 files cannot be evaluated (`--skip-bad` cannot go on without them: it would skip all images of bottle "
        in head
    )
    assert "that may be normal (3)" in head
    assert main(["evaluate", str(maps), "--data", str(data), "--skip-bad", "--normal-folder", "clean ones"]) == 0


def test_images_of_unknown_class_may_be_of_either(tmp_path: Path) -> None:
    """Where only the mask says whether an image is normal, a mask that cannot be read may have been of any class."""
    for name in ("a", "b", "c"):
        mask = np.zeros(SIZE, dtype=np.uint8)
        mask[2:6, 2:6] = 255 * (name != "a")
        write_image(tmp_path / f"data/images/{name}.png", np.zeros((*SIZE, 3), dtype=np.uint8))
        write_image(tmp_path / f"data/masks/{name}.png", mask)
        write_map(tmp_path / f"maps/images/{name}.tiff", np.random.default_rng(0).normal(size=SIZE).astype(np.float32))
    maps = tmp_path / "maps/images"
    (tmp_path / "data/masks/c.png").write_bytes(b"no mask")
    assert evaluate(maps, tmp_path / "data", fpr_bounds=BOUNDS, skip_bad=True).categories[0].num_skipped == 1
    (tmp_path / "data/masks/a.png").write_bytes(b"no mask")
    with pytest.raises(BadFilesError, match=r"all images of data that may be normal \(2\)"):
        evaluate(maps, tmp_path / "data", fpr_bounds=BOUNDS, skip_bad=True)


@pytest.fixture
def _ignored_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first eight columns of each mask be ignored, and every pixel of the masks of holes."""
    original = PairReader.read

    def read(self: PairReader, pair: Any) -> LoadedPair:
        loaded = original(self, pair)
        ignored = torch.zeros_like(loaded.mask)
        ignored[:, :8] = True
        if pair.image.defect == "hole":
            ignored[:] = True
        return loaded._replace(mask=loaded.mask & ~ignored, ignored=ignored)

    monkeypatch.setattr(PairReader, "read", read)


@pytest.mark.usefixtures("_ignored_edge")
def test_ignored_pixels_do_not_count(tmp_path: Path) -> None:
    """Every metric and every number of an image is that of the pixels that are not ignored."""
    maps, data = write_set(tmp_path, {"bottle": {"good": 3, "crack": 2}})
    metrics = ("auroc", "aupr", "aupro")
    (scores,) = evaluate(maps, data, fpr_bounds=BOUNDS, metrics=metrics).categories
    cut, masks = [], []
    for pair in scores.pairs:
        cut.append(torch.from_numpy(tifffile.imread(maps / pair.image.name.replace(".png", ".tiff")))[:, 8:])
        mask = np.zeros(SIZE, dtype=bool)
        if pair.image.masks:
            mask = np.asarray(Image.open(pair.image.masks[0])) > 0
        masks.append(torch.from_numpy(mask)[:, 8:])
    expected = functional.aupimo(torch.stack(cut), torch.stack(masks), fpr_bounds=BOUNDS, reduction="none")
    torch.testing.assert_close(scores.result.aupimos, expected.double(), rtol=0, atol=1e-6, equal_nan=True)
    aupro = functional.aupro(torch.stack(cut), torch.stack(masks))
    assert scores.other_scores["aupro"].value == pytest.approx(float(aupro), abs=1e-6)
    inside, outside = (
        torch.cat([each[mask == is_in] for each, mask in zip(cut, masks, strict=True)]) for is_in in (True, False)
    )
    wins = (inside[:, None] > outside).double().mean()
    assert scores.other_scores["auroc"].value == pytest.approx(float(wins), abs=1e-6)  # torchmetrics answers in float32
    for row, each, mask in zip(scores.image_rows(), cut, masks, strict=True):
        assert row["num_pixels"] == each.numel()
        assert row["mask_pixels"] == int(mask.sum())
        assert row["max_score"] == float(each.max())


@pytest.mark.usefixtures("_ignored_edge")
def test_an_image_of_ignored_pixels_is_a_bad_file(tmp_path: Path) -> None:
    """An image of which nothing counts is named, and skipped only if bad files are."""
    maps, data = write_set(tmp_path, {"bottle": TWO["bottle"]})
    with pytest.raises(BadFilesError, match="every pixel of the mask is ignored"):
        evaluate(maps, data, fpr_bounds=BOUNDS)
    (scores,) = evaluate(maps, data, fpr_bounds=BOUNDS, skip_bad=True).categories
    assert (scores.num_normal, scores.num_anomalous, scores.num_skipped) == (3, 2, 2)
    assert len(scores.result.aupimos) == len(scores.pairs) == len(scores.maps) == 5


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"mask_threshold": "1"}, TypeError, "`mask_threshold` to be None or a number, but got str"),
        ({"mask_threshold": True}, TypeError, "`mask_threshold` to be None or a number, but got bool"),
        ({"mask_threshold": math.nan}, ValueError, "`mask_threshold` to be None or a finite number, but got nan"),
        ({"ignore_index": 2.5}, TypeError, "`ignore_index` to be None or an integer, but got float"),
        ({"layout": "mvtek"}, ValueError, "`layout` to be 'auto'"),
        ({"data": None}, ValueError, "exactly one of `data` and `table`, but got neither"),
        ({"table": "table.csv"}, ValueError, "exactly one of `data` and `table`, but got both"),
        ({"maps": None}, ValueError, "Expected `maps`, as only a `table` can name the map"),
        ({"table": "t.csv", "data": None}, ValueError, "`table` to be a file, but there is no file t.csv"),
        (
            {"table": "t.csv", "data": None, "layout": "mvtec"},
            ValueError,
            "`layout` and `normal_folder` with `data` only",
        ),
    ],
)
def test_settings_are_checked_before_anything_is_read(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A setting that is wrong, or does not go with the others, is named with what was got."""
    maps, data = write_set(tmp_path, {"bottle": TWO["bottle"]})
    with pytest.raises(error, match=message):
        evaluate(**{"maps": maps, "data": data, **settings})


def test_images_of_no_known_type_are_rows_too(tmp_path: Path) -> None:
    """Where no type of defect is known, images are counted under a name that says so; tables have empty cells."""
    maps, data = write_set(tmp_path, {"bottle": TWO["bottle"]})
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    (scores,) = evaluation.categories
    unknown = [pair._replace(image=pair.image._replace(defect=None)) for pair in scores.pairs]
    evaluation = replace(evaluation, categories=[replace(scores, pairs=unknown)])
    assert isinstance(unknown[0].image, LabelledImage)
    assert evaluation.summary("defect").splitlines()[2].split() == [
        "(type",
        "not",
        "known)",
        "3",
        "4",
        *[f"{scores.result.mean:.4f}"],
    ]
    evaluation.save(tmp_path / "out")
    assert {row["defect"] for row in read_rows(tmp_path / "out/images.csv")} == {""}
