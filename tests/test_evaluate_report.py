"""What an evaluation prints and writes: named by image, for people and for programs, complete, and never in silence."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import reference
import tifffile
from data_sets import BOUNDS, COMMAND, SIZE, TWO, strict_json, write_image, write_known, write_set
from matplotlib.figure import Figure
from PIL import Image

from aupimo_torchmetrics.compare import compare_paths
from aupimo_torchmetrics.evaluate import BadFile, BadFilesError, evaluate, find_test_images

ONE = {"bottle": TWO["bottle"]}

blank = pytest.mark.usefixtures("blank_pictures")


def names_of(root: Path) -> list[str]:
    """Paths of all files in a folder, sorted."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@blank
def test_table_of_images_holds_what_the_result_says(tmp_path: Path) -> None:
    """`images.csv` has a row for each image of each category, with the numbers of `to_dataframe` and of its map."""
    maps, data = write_set(tmp_path)
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    evaluation.save(tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/images.csv")
    names = "path category defect is_anomalous mask_pixels aupimo tpr_at_lower tpr_at_upper num_pixels mask_share"
    assert list(table) == [*names.split(), "max_score", "image_score", "mask_max_score"]
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
        assert row.max_score == row.image_score == pytest.approx(scores.max(), rel=1e-12)
        assert row.num_pixels == scores.size
        assert row.mask_share == pytest.approx(row.mask_pixels / scores.size, rel=1e-14)
        assert str(row.path).split("/")[:3:2] == [row.category, row.defect]


@blank
def test_summary_for_programs_is_complete_and_strict_json(tmp_path: Path, printed: Any) -> None:
    """`summary.json` holds settings, versions, scores, counts, warnings and skipped files; `--json` prints it alone."""
    maps, data = write_set(tmp_path, {**TWO, "tile": {"good": 2}, "wood": {"good": 1, "crack": 1}})
    shutil.rmtree(maps / "wood")
    (maps / "screw/test/scratch/001.tiff").write_bytes(b"no map")
    options = "--metrics auroc aupro --skip-bad --json --out"
    summary = strict_json(printed(f"{COMMAND} {options}", tmp_path / "out", "--data", data, maps))
    assert summary == strict_json((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, metrics=("auroc", "aupro"), skip_bad=True)
    by_name = {each["category"]: each for each in summary["categories"]}
    assert list(by_name) == ["bottle", "screw", "tile"]
    for scores in evaluation.categories:
        for name, value in scores.values().items():
            assert by_name[scores.category][name] == (None if math.isnan(value) else value)
    counts = ("num_normal", "num_anomalous", "num_skipped")
    assert [[by_name[name][count] for count in counts] for name in by_name] == [[3, 4, 0], [3, 1, 1], [2, 0, 0]]
    defects = [(each["defect"], each["num_anomalous"]) for each in by_name["bottle"]["defects"]]
    assert defects == [("crack", 2), ("hole", 2)]
    assert summary["mean"]["aupimo"] == pytest.approx((by_name["bottle"]["aupimo"] + by_name["screw"]["aupimo"]) / 2)
    assert summary["num_categories_in_mean"] == {"aupimo": 2, "auroc": 2, "aupro": 2}
    assert summary["without_maps"] == ["wood"]
    assert [each["path"] for each in summary["skipped"]] == ["screw/test/scratch/001.tiff"]
    undefined = [each["category"] for each in summary["warnings"] if "few images" not in each["text"]]
    assert {*undefined} == {"tile"}
    assert (summary["settings"]["fpr_bounds"], summary["settings"]["data"]) == (list(BOUNDS), str(data))
    assert {"python", "torch", "aupimo_torchmetrics"} <= set(summary["versions"])
    assert summary["protocol"].startswith("AUPIMO, exact")


def test_a_folder_that_cannot_be_is_told_before_reading(tmp_path: Path, aupimo: Any) -> None:
    """Where nothing can be written, nothing is read either: bad maps are not mentioned."""
    maps, data = write_set(tmp_path)
    (maps / "bottle/test/good/000.tiff").write_bytes(b"no map")
    (file := tmp_path / "file").touch()
    for out in (file, file / "below/it"):
        code, _, err = aupimo(COMMAND, maps, "--data", data, "--out", out)
        assert (code, err.count("\n")) == (1, 1)
        assert err.startswith(f"aupimo evaluate: Expected `--out` to be a folder, but {file} is a file")


@blank
def test_a_picture_that_cannot_be_drawn_loses_no_score(tmp_path: Path) -> None:
    """A map that can no longer be read is an error, after scores, tables and the page were written."""
    maps, data = write_set(tmp_path, ONE)
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    for path in (maps / "bottle/test/crack").iterdir():
        path.write_bytes(b"no map")
    with pytest.raises(ValueError, match="not a TIFF"):
        evaluation.save(tmp_path / "out", heatmaps=True, report=True)
    written = set(names_of(tmp_path / "out"))
    assert {"images.csv", "summary.json", "report.html", "bottle/aupimo/aupimos.json"} <= written


ODD_NAMES = {"😀 瓶": {"good": 2, "裂け目": 2}, "part" * 30: {"good": 2, "crack" * 30: 2}}


@pytest.mark.parametrize("size", [(12, 200), pytest.param((200, 12), marks=pytest.mark.slow)])
def test_odd_pictures_are_drawn_without_a_warning(tmp_path: Path, size: tuple[int, int]) -> None:
    """Letters that no font has, long names, and narrow photographs are drawn, and no library warns."""
    maps, data = write_set(tmp_path, ODD_NAMES, size=size)
    evaluate(maps, data, fpr_bounds=BOUNDS).save(tmp_path / "out", heatmaps=True, report=True)
    models = ["\U0001f600" + "a" * 200, "\u74f6"]
    (of_one,) = (tmp_path / "out").glob("part*/aupimo/aupimos.json")
    for place in (tmp_path / "out", of_one):
        compare_paths([place] * 2, models, quiet=True).save(tmp_path / "compared", report=True)
    assert len([name for name in names_of(tmp_path / "out") if name.endswith("heatmaps.png")]) == 2


def ignore_edges(data: Path, *, holes: bool = False) -> None:
    """Let the first eight columns of each mask be 128, to be ignored, and perhaps every pixel of those of holes."""
    for path in (data / "bottle/ground_truth").rglob("*.png"):
        mask = np.array(Image.open(path))
        mask[:, : None if holes and path.parent.name == "hole" else 8] = 128
        write_image(path, mask)


@blank
@pytest.mark.parametrize("name", ["Flasche_\u00e4_\u74f6", 'a, "quoted"; name', "a\nb"])
def test_table_of_images_opens_whatever_names_it_holds(tmp_path: Path, name: str) -> None:
    """Names with commas, quotes and other letters come back, and Excel is told of UTF-8 where it matters."""
    maps, data = write_set(tmp_path, {name: {"good": 1, "crack": 1}})
    evaluate(maps, data, fpr_bounds=BOUNDS).save(tmp_path / "out")
    assert (tmp_path / "out/images.csv").read_bytes().startswith(b"\xef\xbb\xbf") == (not name.isascii())
    assert pd.read_csv(tmp_path / "out/images.csv")["category"].tolist() == [name, name]
    text = (tmp_path / "out/summary.json").read_text(encoding="utf-8")
    assert strict_json(text)["categories"][0]["category"] == name
    assert json.dumps(name, ensure_ascii=False) in text


def test_means_say_of_how_many_categories(tmp_path: Path) -> None:
    """Undefined scores are NaN in every metric, and a mean leaves them out and says of how many categories it is."""
    maps, data = write_set(tmp_path, {**TWO, "tile": {"good": 2}, "wood": {"crack": 2}})
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, metrics=("auroc", "aupr", "aupro"))
    assert all(math.isnan(value) for value in evaluation.categories[2].values().values())
    rows = {line.split("  ")[0]: line.split() for line in evaluation.summary().splitlines()}
    assert rows["wood"][1:4] == ["0", "2", "nan"]
    assert rows["mean of"][2:] == ["2", "of", "4", *["3", "of", "4"] * 3]
    means = [mean for mean, _ in evaluation.means().values()]
    assert list(map(float, rows["mean"][1:])) == pytest.approx(means, abs=1e-4)
    defined = [scores.values()["auroc"] for scores in evaluation.categories if scores.category != "tile"]
    assert evaluation.means()["auroc"] == (pytest.approx(sum(defined) / 3), 3)


@blank
def test_rows_by_defect(tmp_path: Path, printed: Any) -> None:
    """`--by defect` adds a row for each type of defect, with its number of images and the mean of their scores.

    Where no type is known, images are counted under a name that says so; tables have empty cells. Images need not be
    on disk, which the page says.
    """
    maps, data = write_set(tmp_path)
    lines = printed(f"{COMMAND} --by defect", maps, "--data", data).splitlines()
    assert "mean of" not in lines[7]
    names = ["category", "bottle", "crack", "hole", "screw", "scratch", "mean"]
    assert [line.split()[0] for line in lines[:7]] == names
    bottle = evaluate(maps, data, fpr_bounds=BOUNDS).categories[0]
    for line, defect in zip(lines[2:4], ("crack", "hole"), strict=True):
        scores = [image["aupimo"] for image in bottle.images if image["defect"] == defect]
        assert line.split() == [defect, "3", "2", f"{sum(scores) / 2:.4f}"]
    maps, data = write_set(tmp_path / "one", ONE)
    table = pd.DataFrame({"image": each.name, "mask": "".join(map(str, each.masks))} for each in find_test_images(data))
    evaluation = evaluate(maps, table=table, fpr_bounds=BOUNDS)
    line = next(line for line in evaluation.summary("defect").splitlines() if line.startswith("  (type"))
    assert line.split()[3:] == ["3", "4", f"{evaluation.categories[0].result.mean:.4f}"]
    evaluation.save(tmp_path / "out", report=True)
    assert pd.read_csv(tmp_path / "out/images.csv")["defect"].isna().all()
    assert "The image is not on disk." in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_quiet_says_no_more_than_the_result(tmp_path: Path, printed: Any) -> None:
    """`--quiet` prints the table without hints."""
    maps, data = write_set(tmp_path)
    loud, still = (printed(f"{COMMAND}{option}", maps, "--data", data) for option in ("", " --quiet"))
    assert loud == f"{still}Nothing was written: --out DIR keeps scores, curves and pictures.\n"


@pytest.mark.slow
def test_a_closed_pipe_loses_nothing(tmp_path: Path) -> None:
    """Who reads no line of the output gets all files, no traceback and code 0."""
    maps, data = write_set(tmp_path)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "aupimo_torchmetrics", *COMMAND.split()]
    command += [str(maps), "--data", str(data), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)  # noqa: S603
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
    assert {"images.csv", "summary.json", "screw/aupimo/curves.png"} <= set(names_of(tmp_path / "out"))


@blank
@pytest.mark.slow
def test_what_is_left_of_other_results_is_told(tmp_path: Path, printed: Any) -> None:
    """A run into a folder names what it leaves of an earlier one, but nothing of anybody else."""
    maps, data = write_set(tmp_path, {**TWO, "tile": {"good": 2, "crack": 2}})
    out = tmp_path / "out"
    given = ("--out", out, "--data", data, maps)
    assert "earlier" not in printed(f"{COMMAND} --metrics auroc --report", *given)
    shutil.rmtree(maps / "tile")
    (out / "notes.txt").touch()
    before = names_of(out)
    left = "Left of an earlier evaluation, and not of this one: bottle/aupimo/counts.safetensors, "
    assert left in printed(f"{COMMAND} --format svg", *given)
    saved = evaluate(maps, data, fpr_bounds=BOUNDS).save(out, picture_format="svg")
    assert saved.left == sorted({*before} - {*saved.written, "notes.txt"})
    assert {*saved.written} <= {*names_of(out)}


NAMES = [["..", "."], ["../../x", "..\\..\\x"], ["/tmp/abs", "C:\\abs"], ["", " "], ["images.csv", "summary.json"]]  # noqa: S108
NAMES += [["a/b", "a_b"], ["Bottle", "bottle"], ["bottle", "Bottle"], ["a\0b", "a\nb"], ["metal nut", "..hidden"]]


@blank
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.slow
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, names: list[str]) -> None:
    """Whatever categories are called, each has one folder of its own inside of `out`, and `summary.json` says which."""
    maps, data = write_set(tmp_path / "in")
    before, out = names_of(tmp_path), tmp_path / "deep/er/out"
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    for scores, name in zip(evaluation.categories, names, strict=True):
        scores.category = name
    evaluation.save(out)
    assert all(name.startswith("deep/er/out/") for name in names_of(tmp_path) if name not in before)
    categories = strict_json((out / "summary.json").read_text(encoding="utf-8"))["categories"]
    assert [each["category"] for each in categories] == names
    folders = [each["folder"] for each in categories]
    assert len({folder.lower() for folder in folders}) == 2
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == sorted(folders)
    assert folders == names or "metal nut" not in names


@blank
def test_ctrl_c_while_writing_says_what_was_written(
    tmp_path: Path, aupimo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before is counted and complete, and nothing else is there."""
    monkeypatch.setattr(Figure, "savefig", Mock(side_effect=KeyboardInterrupt))
    maps, data = write_set(tmp_path)
    code, _, err = aupimo(COMMAND, maps, "--data", data, "--out", tmp_path / "out")
    written = names_of(tmp_path / "out")
    told = f"aupimo evaluate: stopped; {len(written)} files were written to {tmp_path / 'out'}, each complete\n"
    assert (code, err) == (1, told)
    assert {"images.csv", "summary.json", "screw/aupimo/curves.pt"} <= {*written}
    assert not [name for name in written if "unfinished" in name]


@blank
@pytest.mark.parametrize(("picture_format", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_heat_maps_without_photographs(tmp_path: Path, picture_format: Any, start: bytes) -> None:
    """Where images are absent or cannot be read, they are drawn over grey, and say so; in the format asked for."""
    maps, data = write_set(tmp_path)
    for path in (data / "bottle/test/crack").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS)
    shutil.rmtree(data / "screw/test/scratch")
    saved = evaluation.save(tmp_path / "out", heatmaps=True, picture_format=picture_format)
    for name in TWO:
        pictures = [f"{name}/aupimo/{kind}.{picture_format}" for kind in ("distribution", "curves", "heatmaps")]
        assert [path for path in saved.written if path in pictures] == pictures
        drawn = [(tmp_path / "out" / picture).read_bytes() for picture in pictures]
        assert [picture.startswith(start) for picture in drawn] == [True] * 3
        assert picture_format == "pdf" or b"without its" in drawn[-1]


@pytest.mark.parametrize("count", [1, 10, 11, 500])
def test_every_bad_file_is_listed_once(count: int) -> None:
    """Few files have a line each, many of one reason one together, also if paths and numbers in it differ."""
    same = [BadFile(f"good/{n:03}.png", "an image without a map") for n in range(count)]
    sizes = [f"the map is ({n}, 10), its mask ({n + 7}, 12) in /x y/{n}.png" for n in range(count)]
    other = [BadFile(f"a b/{n:03}.png", reason) for n, reason in enumerate(sizes)]
    head, *lines = str(BadFilesError([*same, *other, *same], "")).splitlines()
    assert head.startswith(f"{2 * count} files")
    assert len(lines) == (2 * count if count <= 10 else 2)
    assert count <= 10 or all(line.startswith(f"  {count} files, such as ") for line in lines)


def test_one_warning_of_many_categories_is_one_line(tmp_path: Path) -> None:
    """A warning that differs only in numbers is printed once, with the categories that it is of."""
    maps, data = write_set(tmp_path, {f"part{number}": {"good": 2 + number, "crack": 1} for number in range(3)})
    evaluation = evaluate(maps, data)
    (line,) = [line for line in evaluation.summary().splitlines() if line.startswith("warning: ")]
    assert line.startswith("warning: part0: AUPIMO is uncertain. The FPR bounds (1e-05,")
    assert line.endswith("The same, with other numbers: part1, part2.")
    assert len(evaluation.to_dict()["warnings"]) == 3


def test_ignored_pixels_do_not_count(tmp_path: Path) -> None:
    """Every metric and every number of an image is that of the pixels that are not ignored."""
    maps, data, known = write_known(tmp_path, {"bottle": {"good": 3, "crack": 2}}, {"bottle": SIZE})
    ignore_edges(data)
    by_path, cut, masks = {each.path: each for each in known}, [], []
    metrics = ("auroc", "aupr", "aupro", "image_auroc")
    (scores,) = evaluate(maps, data, fpr_bounds=BOUNDS, metrics=metrics, ignore_index=128).categories
    for image in scores.images:
        columns = slice(8 if image["is_anomalous"] else 0, None)
        cut.append(by_path[image["path"]].scores[:, columns])
        masks.append(by_path[image["path"]].mask[:, columns] == 255)
        found = [image[name] for name in ("num_pixels", "mask_pixels", "max_score")]
        assert found == [cut[-1].size, int(masks[-1].sum()), float(cut[-1].max())]
    assert scores.result.aupimos.tolist() == pytest.approx(reference.aupimo(cut, masks, BOUNDS), abs=1e-12, nan_ok=True)
    expected = reference.all_metrics(cut, masks)
    assert [scores.values()[name] for name in metrics] == pytest.approx([expected[name] for name in metrics], abs=1e-12)


def test_an_image_of_ignored_pixels_is_a_bad_file(tmp_path: Path) -> None:
    """An image of which nothing counts is named, and skipped only if bad files are."""
    maps, data = write_set(tmp_path, ONE)
    ignore_edges(data, holes=True)
    with pytest.raises(BadFilesError, match=r"^2 files"):
        evaluate(maps, data, fpr_bounds=BOUNDS, ignore_index=128)
    (scores,) = evaluate(maps, data, fpr_bounds=BOUNDS, skip_bad=True, ignore_index=128).categories
    assert (scores.num_normal, scores.num_anomalous, scores.num_skipped) == (3, 2, 2)
    assert len(scores.result.aupimos) == len(scores.pairs) == len(scores.images) == 5


LOST = {
    "bottle/test/good": "bottle",
    "bottle/test/[!g]*": "bottle",
    "screw/test/*": "screw",
    "*/test/*": "bottle, screw",
}
"""Folders of maps that hold NaN, and the categories that are named."""


@blank
@pytest.mark.parametrize("folders", LOST)
@pytest.mark.parametrize("skip_bad", [True, False])
def test_no_class_of_images_is_skipped_as_a_whole(tmp_path: Path, aupimo: Any, folders: str, skip_bad: bool) -> None:
    """Where bad files are all images of a class of a category, it stops, says so and why, and nothing is written."""
    maps, data = write_set(tmp_path)
    for path in maps.glob(f"{folders}/*"):
        tifffile.imwrite(path, np.full(SIZE, np.nan, dtype=np.float32))
    given = (maps, "--data", data, "--out", tmp_path / "out", *["--skip-bad"] * skip_bad)
    code, _, err = aupimo(COMMAND, *given)
    head, *lines = err.splitlines()
    assert code == 1
    expected = f"that leaves no normal or no anomalous image of {LOST[folders]}"
    assert f"(`--skip-bad` cannot go on without them: {expected}):" in head
    assert lines
    assert all("NaN in the map" in line for line in lines)
    assert not (tmp_path / "out").exists()
