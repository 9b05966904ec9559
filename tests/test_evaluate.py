"""`aupimo evaluate` scores what lies on disk as the definition says, and names every file that it cannot score."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult, PIMOResult
from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.evaluate import BadDataError, BadFilesError, evaluate, find_test_images, open_maps

BOUNDS = (1e-2, 1e-1)
FLOAT32 = 2e-6
"""Maps resized in float32 and in float64 differ by their rounding, which moves a curve's steps by as much."""
DEFECTS = {"bottle": ("broken", "dirt"), "screw": ("scratch",)}
SIZES = {"bottle": (24, 30), "screw": (20, 20)}

Arrays = dict[str, NDArray[Any]]


def write_image(path: Path, pixels: NDArray[Any]) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_map(path: Path, scores: NDArray[Any]) -> None:
    """Write a map in the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, scores)
    elif path.suffix == ".tiff":
        tifffile.imwrite(path, scores)
    else:
        Image.fromarray(scores).save(path)


def make_data(root: Path) -> tuple[Arrays, Arrays]:
    """Write a data set in the layout of MVTec AD; return maps of half the size of the masks, and masks, by key."""
    random = np.random.default_rng(0)
    maps, masks = {}, {}
    for category, defects in DEFECTS.items():
        height, width = SIZES[category]
        for defect, number in [(defect, number) for defect in ("good", *defects) for number in range(3)]:
            key = f"{category}/test/{defect}/{number:03}"
            mask = np.zeros((height, width), dtype=bool)
            if defect != "good":
                mask[5 : 9 + number, 4:10] = True
                mask[-2:, -3:] = True  # a second region
                write_image(
                    root / f"{category}/ground_truth/{defect}/{number:03}_mask.png", mask.astype(np.uint8) * 255
                )
            write_image(root / f"{key}.png", random.integers(0, 255, (height, width, 3), dtype=np.uint8))
            small = mask[::2, ::2]
            maps[key] = (random.normal(size=small.shape) + 1.5 * small).astype(np.float32)
            masks[key] = mask
    return maps, masks


def write_tree(folder: Path, maps: Arrays, suffix: str = ".tiff") -> Path:
    """Write maps laid out like their images."""
    for key, scores in maps.items():
        write_map(folder / f"{key}{suffix}", scores)
    return folder


def expected_values(maps: Arrays, masks: Arrays, category: str) -> dict[str, Any]:
    """Score a category by the definitions, with the masks' size brought about by loops."""
    keys = sorted(key for key in maps if key.startswith(category))
    both = [masks[key] for key in keys]
    resized = [reference.resize(maps[key].astype(np.float64), *masks[key].shape) for key in keys]
    scores, targets = (np.concatenate([image.ravel() for image in images]) for images in (resized, both))
    regions = reference.aupro(resized, both, 0.3)
    return {
        "keys": keys,
        "aupimos": reference.aupimo(resized, both, BOUNDS),
        "auroc": reference.auroc(scores, targets),
        "aupr": reference.average_precision(scores, targets),
        "aupro": sum(regions) / len(regions),
    }


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Arrays, Arrays]:
    """A data set of two categories, and maps for it."""
    root = tmp_path / "data"
    return root, *make_data(root)


def options(root: Path, *more: str) -> list[str]:
    """Arguments of a command on the data set."""
    return ["--data", str(root), "--fpr-bounds", str(BOUNDS[0]), str(BOUNDS[1]), *more]


def test_files_hold_the_scores_of_the_definition(
    tmp_path: Path, data: tuple[Path, Arrays, Arrays], capsys: pytest.CaptureFixture[str]
) -> None:
    """A tree of maps of half the masks' size scores as slow loops say, in all four metrics and in every file."""
    root, maps, masks = data
    tree, out = write_tree(tmp_path / "maps", maps), tmp_path / "out"
    arguments = options(root, "--out", str(out), "--metrics", "aupimo", "auroc", "aupr", "aupro", "--heatmaps")
    assert main(["evaluate", str(tree), *arguments]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["category", "normal", "defect", "AUPIMO", "AUROC", "AUPR", "AUPRO"]
    rows = []
    for category, line in zip(DEFECTS, table[1:], strict=False):
        expected = expected_values(maps, masks, category)
        result = AUPIMOResult.load(out / category / "aupimo" / "aupimos.json")
        assert result.paths == [f"{key}.png" for key in expected["keys"]]
        assert result.aupimos.tolist() == pytest.approx(expected["aupimos"], abs=FLOAT32, nan_ok=True)
        assert (result.fpr_bounds, result.num_thresholds) == (BOUNDS, None)
        values = [np.nanmean(expected["aupimos"])]
        for name in ("auroc", "aupr", "aupro"):
            value = json.loads((out / category / f"{name}.json").read_text(encoding="utf-8"))["value"]
            assert value == pytest.approx(expected[name], abs=FLOAT32)
            values.append(expected[name])
        row = line.split()
        assert row[:3] == [category, "3", str(3 * len(DEFECTS[category]))]
        assert [float(value) for value in row[3:]] == pytest.approx(values, abs=1e-4)
        rows.append(values)
        assert PIMOResult.load(out / category / "aupimo" / "curves.pt").per_image_tprs.shape[0] == len(expected["keys"])
        for picture in ("distribution", "curves", "heatmaps"):
            with Image.open(out / category / "aupimo" / f"{picture}.png") as image:
                assert image.width > 300
    assert [float(value) for value in table[3].split()[1:]] == pytest.approx(np.mean(rows, axis=0), abs=1e-4)
    assert "resized bilinearly to the size of their masks: 10 x 10 to 20 x 20, 12 x 15 to 24 x 30" in "\n".join(table)
    assert not [file for file in out.rglob("*") if "unfinished" in file.name]


def write_tensor(path: Path, maps: Arrays, names: list[str]) -> Path:
    """Write maps of one category as the official package does, in the order of the names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = [name.removeprefix("MVTec/").removesuffix(".png") for name in names]
    torch.save({"asmaps": torch.from_numpy(np.stack([maps[key] for key in keys])), "paths": names}, path)
    return path


def test_official_file_of_maps_is_scored_beside_it(
    tmp_path: Path, data: tuple[Path, Arrays, Arrays], capsys: pytest.CaptureFixture[str]
) -> None:
    """`asmaps.pt` in any order, with paths that begin with the collection, leaves `aupimo/aupimos.json` beside it."""
    root, maps, masks = data
    names = [f"MVTec/{key}.png" for key in maps if key.startswith("bottle")]
    np.random.default_rng(1).shuffle(names)
    path = write_tensor(tmp_path / "model" / "asmaps.pt", maps, names)
    assert main(["evaluate", str(path), *options(root)]) == 0
    expected = expected_values(maps, masks, "bottle")
    result = AUPIMOResult.load(tmp_path / "model" / "aupimo" / "aupimos.json")
    assert result.paths == [f"{key}.png" for key in expected["keys"]]
    assert result.aupimos.tolist() == pytest.approx(expected["aupimos"], abs=FLOAT32, nan_ok=True)
    printed = capsys.readouterr().out
    assert "AUPIMO, exact" in printed
    assert "not evaluated, as there is no map: screw\n" in printed
    assert not (tmp_path / "model" / "screw").exists()


def test_sampled_thresholds_and_the_category_alone(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """A single category may be given as root, and thresholds may be sampled."""
    root, maps, masks = data
    tree = write_tree(tmp_path / "maps", {k.removeprefix("screw/"): v for k, v in maps.items() if "screw" in k})
    evaluation = evaluate(tree, root / "screw", fpr_bounds=BOUNDS, num_thresholds=5000)
    (scores,) = evaluation.categories
    expected = expected_values(maps, masks, "screw")
    assert scores.category == "screw"
    assert scores.result.num_thresholds == 5000
    # 1,200 normal pixels have fewer distinct scores than thresholds: sampling misses the bounds by a pixel at most
    assert scores.result.aupimos.tolist() == pytest.approx(expected["aupimos"], abs=0.05, nan_ok=True)
    assert any("5000 thresholds" in line for line in evaluation.summary().splitlines())


def test_scores_far_from_zero_are_not_squeezed(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """Scores are ranked as they are: an offset, under which a sigmoid would tie them all, changes no metric."""
    root, maps, _ = data
    rounded = {key: np.round(scores * 64) / 64 for key, scores in maps.items()}  # exact with and without the offset
    full = {key: np.kron(scores, np.ones((2, 2), dtype=np.float32)) for key, scores in rounded.items()}
    shifted = {key: scores + np.float32(1000) for key, scores in full.items()}
    metrics = ("auroc", "aupr", "aupro")
    values = [
        [scores.values() for scores in evaluate(write_tree(tmp_path / name, each), root, metrics=metrics).categories]
        for name, each in (("full", full), ("shifted", shifted))
    ]
    assert values[0] == values[1]


FORMATS: dict[str, tuple[str, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "float16 TIFF": (".tiff", lambda scores: scores.astype(np.float16)),
    "float32 TIFF": (".tiff", lambda scores: scores),
    "float64 NumPy": (".npy", lambda scores: scores.astype(np.float64)),
    "big-endian NumPy": (".npy", lambda scores: scores.astype(">f4")),
    "channel first": (".npy", lambda scores: scores[None]),
    "8-bit PNG": (".png", lambda scores: (40 * (scores + 3)).clip(0, 255).astype(np.uint8)),
    "16-bit PNG": (".png", lambda scores: (9000 * (scores + 3)).clip(0, 65535).astype(np.uint16)),
    "16-bit TIFF": (".tiff", lambda scores: (9000 * (scores + 3)).clip(0, 65535).astype(np.uint16)),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_of_maps(tmp_path: Path, data: tuple[Path, Arrays, Arrays], kind: str) -> None:
    """A map means the numbers that its file holds, in each format."""
    root, maps, masks = data
    suffix, convert = FORMATS[kind]
    written = {key: convert(scores) for key, scores in maps.items()}
    evaluation = evaluate(write_tree(tmp_path / "maps", written, suffix), root, fpr_bounds=BOUNDS)
    for scores in evaluation.categories:
        numbers = {key: np.squeeze(value).astype(np.float64) for key, value in written.items()}
        expected = expected_values(numbers, masks, scores.category)["aupimos"]
        # resizing in float32 or float64 may round equal scores to different ones, which moves a few pixels
        tolerance = 0.02 if "-bit" in kind else FLOAT32
        assert scores.result.aupimos.tolist() == pytest.approx(expected, abs=tolerance, nan_ok=True)


def as_visa(root: Path) -> tuple[str, str, str]:
    """Write one normal and one anomalous image as VisA is published, and one more of each to train on."""
    rows = ["object,split,label,image,mask"]
    for split, number in (("train", 0), ("test", 1)):
        for label in ("Normal", "Anomaly"):
            image = f"candle/Data/Images/{label}/{number:03}.JPG"
            write_image(root / image, np.zeros((8, 8, 3), dtype=np.uint8))
            rows.append(f"candle,{split},{label.lower()},{image},")
        mask = np.zeros((8, 8), dtype=np.uint8)
        mask[2, 2:5] = 3  # the number of a kind of defect
        write_image(root / f"candle/Data/Masks/Anomaly/{number:03}.png", mask)
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows), encoding="utf-8")
    return "visa", "candle/Data/Images/Normal/001", "candle/Data/Images/Anomaly/001"


def as_loco(root: Path) -> tuple[str, str, str]:
    """Write one normal and one anomalous image as MVTec LOCO has them, with two masks."""
    write_image(root / "box/test/good/000.png", np.zeros((8, 8, 3), dtype=np.uint8))
    write_image(root / "box/test/logical_anomalies/000.png", np.zeros((8, 8, 3), dtype=np.uint8))
    for number, columns in enumerate((slice(2, 4), slice(4, 5))):
        mask = np.zeros((8, 8), dtype=np.uint8)
        mask[2, columns] = 255
        write_image(root / f"box/ground_truth/logical_anomalies/000/{number:03}.png", mask)
    return "loco", "box/test/good/000", "box/test/logical_anomalies/000"


@pytest.mark.parametrize("write", [as_visa, as_loco])
@pytest.mark.parametrize("is_named", [True, False])
def test_layouts(tmp_path: Path, write: Callable[[Path], tuple[str, str, str]], is_named: bool) -> None:
    """Each layout is known by its name and by itself, and gives each image its class and its mask."""
    layout, normal, anomalous = write(tmp_path / "data")
    scores = np.arange(64, dtype=np.float32).reshape(8, 8)
    tree = write_tree(tmp_path / "maps", {normal: scores, anomalous: scores}, ".npy")
    evaluation = evaluate(tree, tmp_path / "data", layout if is_named else "auto", (0.1, 0.9))
    (result,) = (each.result for each in evaluation.categories)
    keys = [path.rsplit(".", 1)[0] for path in result.paths or []]
    by_key = dict(zip(keys, result.aupimos.tolist(), strict=True))
    mask = np.zeros((8, 8), dtype=bool)
    mask[2, 2:5] = True
    expected = reference.aupimo([scores, scores], [np.zeros_like(mask), mask], (0.1, 0.9))
    assert [by_key[key] for key in (normal, anomalous)] == pytest.approx(expected, nan_ok=True)
    assert evaluation.summary().count("Maps have the size of their masks") == 1


def spoil(root: Path, tree: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Make bad files of each kind, and one more image that is not.

    Return a part of the path and a reason of each: of those that are seen from names, and of those that are read.
    """
    kept = "bottle/test/dirt/002"
    for file in (
        root / f"{kept}.png",
        root / f"{kept.replace('test', 'ground_truth')}_mask.png",
        tree / f"{kept}.tiff",
    ):
        shutil.copy(file, file.with_name(file.name.replace("002", "003")))
    (root / "bottle/ground_truth/broken/000_mask.png").unlink()
    write_image(root / "bottle/ground_truth/broken/001_mask.png", np.zeros((24, 30), dtype=np.uint8))
    (root / "bottle/ground_truth/broken/002_mask.png").write_bytes(b"no image")
    (tree / "bottle/test/dirt/000.tiff").unlink()
    truncated = tree / "bottle/test/dirt/001.tiff"
    truncated.write_bytes(truncated.read_bytes()[:100])
    tifffile.imwrite(tree / "bottle/test/dirt/002.tiff", np.full((12, 15), np.nan, dtype=np.float32))
    write_map(tree / "bottle/test/nowhere/000.npy", np.zeros((2, 2)))
    write_map(tree / "bottle/test/good/000.npy", np.zeros((2, 2)))
    (tree / "screw/test/scratch/001.tiff").unlink()
    write_map(tree / "screw/test/scratch/001.png", np.zeros((10, 10, 3), dtype=np.uint8))
    named = {
        "bottle/test/broken/000.png": "000_mask.png is missing",
        "bottle/test/dirt/000.png": "a test image without a map",
        "bottle/test/nowhere/000.npy": "a map without a test image",
        "bottle/test/good/000.png": "several maps of one image",
    }
    read = {
        "bottle/test/broken/001.png": "001_mask.png is empty",
        "broken/002_mask.png": "cannot identify image file",
        "bottle/test/dirt/001.tiff": "",
        "bottle/test/dirt/002.tiff": "NaN in the map",
        "screw/test/scratch/001.png": "an image of mode RGB is no map",
    }
    return named, read


def test_bad_files_are_listed_all_at_once(
    tmp_path: Path, data: tuple[Path, Arrays, Arrays], capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad files are named with their reasons, all that are seen from names before any is read; `--skip-bad` goes on."""
    root, maps, _ = data
    tree, out = write_tree(tmp_path / "maps", maps), tmp_path / "out"
    named, read = spoil(root, tree)
    assert main(["evaluate", str(tree), *options(root, "--out", str(out))]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert f"aupimo evaluate: {len(named)} files cannot be evaluated (`--skip-bad` goes on without them, " in lines[0]
    assert len(lines) == len(named) + 1
    for path, reason in named.items():
        assert [line for line in lines if path in line and reason in line], path
    assert not out.exists()
    assert main(["evaluate", str(tree), *options(root, "--out", str(out), "--skip-bad")]) == 0
    skipped = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == len(named) + len(read)
    for path, reason in (named | read).items():
        assert [line for line in skipped if path in line and reason in line], path
    result = AUPIMOResult.load(out / "screw" / "aupimo" / "aupimos.json")
    kinds = {"good": ("000", "001", "002"), "scratch": ("000", "002")}
    assert result.paths == [f"screw/test/{kind}/{name}.png" for kind, names in kinds.items() for name in names]


def test_bad_files_that_are_read_are_listed_all_at_once(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """Where all names fit, every file is read, and all that cannot be evaluated are named together."""
    root, maps, _ = data
    tree = write_tree(tmp_path / "maps", maps)
    bad = [tree / "bottle/test/dirt/000.tiff", tree / "screw/test/good/001.tiff"]
    for path in bad:
        path.write_bytes(b"no map")
    with pytest.raises(BadFilesError, match=r"2 files cannot be evaluated \(`skip_bad=True` goes on without") as caught:
        evaluate(tree, root, fpr_bounds=BOUNDS)
    assert [tree / bad_file.path for bad_file in caught.value.bad_files] == bad


def test_nothing_but_bad_files(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """Where every file is bad, even `skip_bad` cannot go on, and nobody is advised to use it."""
    root, maps, _ = data
    tree = write_tree(tmp_path / "maps", {key: scores * np.nan for key, scores in maps.items()})
    for skip_bad in (False, True):
        with pytest.raises(BadFilesError, match=r"that leaves no normal or no anomalous image of bottle, sc") as caught:
            evaluate(tree, root, skip_bad=skip_bad)
        assert len(caught.value.bad_files) == len(maps)
        assert {bad_file.reason for bad_file in caught.value.bad_files} == {"NaN in the map"}


def test_maps_that_must_have_the_size_of_their_masks(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """With `resize=False` a map of another size is a bad file, and one of the right size is taken as it is."""
    root, maps, masks = data
    message = r"the map is \(12, 15\), its mask \(24, 30\); without `resize=False` it would be resized"
    with pytest.raises(BadFilesError, match=message):
        evaluate(write_tree(tmp_path / "small", maps), root, fpr_bounds=BOUNDS, resize=False)
    full = {key: np.kron(scores, np.ones((2, 2), dtype=np.float32)) for key, scores in maps.items()}
    evaluation = evaluate(write_tree(tmp_path / "full", full), root, fpr_bounds=BOUNDS, resize=False)
    for scores in evaluation.categories:
        keys = sorted(key for key in maps if key.startswith(scores.category))
        expected = reference.aupimo([full[key] for key in keys], [masks[key] for key in keys], BOUNDS)
        assert scores.result.aupimos.tolist() == pytest.approx(expected, abs=FLOAT32, nan_ok=True)


NO_DEVICE = "`--device` to be a device of this machine, but got"
ERRORS: dict[str, tuple[list[str], int, str]] = {
    "no maps": (
        ["nowhere.pt", "--data", "data"],
        2,
        "`MAPS` to be a file `asmaps.pt` or a folder of maps, but",
    ),
    "no data": (["maps", "--data", "nowhere"], 2, "`--data` to be a folder, but there is no folder nowhere"),
    "empty maps": (
        ["data/split", "--data", "data"],
        1,
        "data/split to hold maps (.tiff, .tif, .png, .npy, .npz, .pt, .pth)",
    ),
    "empty data": (
        ["maps", "--data", "data/bottle/ground_truth"],
        1,
        "in one layout, but it fits none. Give another folder",
    ),
    "other layout": (
        ["maps", "--data", "data", "--layout", "folder"],
        1,
        "in the layout 'folder', but it fits `--layout mvtec`",
    ),
    "bounds": (
        ["maps", "--data", "data", "--fpr-bounds", "0.1", "0.01"],
        2,
        "`--fpr-bounds` to satisfy 0 < lower < upper <= 1, but got (0.1, 0.01); they are in reverse order",
    ),
    "thresholds": (
        ["maps", "--data", "data", "--num-thresholds", "1"],
        2,
        "`--num-thresholds` to be None or at least 2, but got 1",
    ),
    "no number": (
        ["maps", "--data", "data", "--num-thresholds", "x"],
        2,
        "argument --num-thresholds: invalid int value: 'x'",
    ),
    "metric": (["maps", "--data", "data", "--metrics", "f1"], 2, "invalid choice: 'f1'"),
    "bins": (["maps", "--data", "data", "--num-bins", "1000"], 2, "`--num-bins` to be None or a power of two"),
    "page of nowhere": (
        ["maps", "--data", "data", "--report"],
        2,
        "Expected `--out` with `--report`, which is written",
    ),
    "folder of the normal images": (
        ["maps", "--data", "data", "--normal-folder", "nowhere"],
        2,
        "`--normal-folder` to name folders of images, but there is no 'nowhere'",
    ),
    "table of nothing": (["--write-table", "t.csv"], 2, "Expected `--data` with `--write-table`, but got none"),
    "no data set": (["maps"], 2, "exactly one of `--data` and `--table`, but got neither"),
    "two data sets": (["maps", "--data", "data", "--table", "t.csv"], 2, "of `--data` and `--table`, but got both"),
    "no maps given": (["--data", "data"], 2, "Expected `MAPS`, as only a `--table` can name the map of each image"),
    "no table": (["maps", "--table", "t.csv"], 2, "`--table` to be a file, but there is no file t.csv"),
    "folders and a table": (
        ["maps", "--table", "t.csv", "--normal-folder", "ok"],
        2,
        "`--layout` and `--normal-folder` with `--data` only, but got `--table`",
    ),
    "suffix and a table": (["--table", "t.csv", "--map-suffix", ".npy"], 2, "`--map-suffix` with `MAPS` only"),
    "unknown layout": (
        ["maps", "--data", "data", "--layout", "mvtek"],
        2,
        "argument --layout: invalid choice: 'mvtek'",
    ),
    "text for a bound": (["maps", "--data", "data", "--fpr-bounds", "a", "b"], 2, "invalid float value: 'a'"),
    "NaN for a bound": (["maps", "--data", "data", "--fpr-bounds", "nan", "1"], 2, "but got (nan, 1)"),
    "text for a threshold": (["maps", "--data", "data", "--mask-threshold", "x"], 2, "invalid float value: 'x'"),
    "infinite threshold": (
        ["maps", "--data", "data", "--mask-threshold", "inf"],
        2,
        "`--mask-threshold` to be None or a finite number, but got inf",
    ),
    "text for a value": (["maps", "--data", "data", "--ignore-index", "2.5"], 2, "invalid int value: '2.5'"),
    "picture format": (["maps", "--data", "data", "--format", "gif"], 2, "argument --format: invalid choice: 'gif'"),
    "rows": (["maps", "--data", "data", "--by", "image"], 2, "argument --by: invalid choice: 'image'"),
    "GPU that is not there": (["maps", "--data", "data", "--device", "cuda:99"], 2, f"{NO_DEVICE} 'cuda:99'"),
    "device": (
        ["maps", "--data", "data", "--device", "tpu9"],
        2,
        f"{NO_DEVICE} 'tpu9'",
    ),
    "meta": (
        ["maps", "--data", "data", "--device", "meta"],
        2,
        f"{NO_DEVICE} 'meta'",
    ),
    "no disk": (["maps", "--data", "data", "--out", "maps/bottle/test/good/000.tiff"], 1, "000.tiff"),
}
"""Arguments, the exit code, and a part of the line on standard error."""
if not torch.cuda.is_available():
    ERRORS["no GPU"] = (
        ["maps", "--data", "data", "--device", "cuda"],
        2,
        f"{NO_DEVICE} 'cuda'",
    )


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_are_one_line_and_the_code_of_the_table(
    tmp_path: Path,
    data: tuple[Path, Arrays, Arrays],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    """A wrong command ends with code 2, unfit data with code 1, and one line says why in the words of the command."""
    write_tree(tmp_path / "maps", data[1])
    (tmp_path / "data/split").mkdir()
    monkeypatch.chdir(tmp_path)
    arguments, expected, message = ERRORS[kind]
    try:
        code = main(["evaluate", *arguments])
    except SystemExit as error:
        code = error.code
    assert code == expected
    line, *needs = capsys.readouterr().err.strip().splitlines()
    assert bool(needs) == (kind in {"empty data", "other layout"})  # what each layout needs
    assert line.startswith("aupimo evaluate: ")
    assert message in line


def test_errors_of_the_library_name_its_parameters(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """Who calls `evaluate` reads of `maps`, `data` and `device`, and never of options."""
    root, maps, _ = data
    tree = write_tree(tmp_path / "maps", maps)
    with pytest.raises(
        ValueError, match=r"^Expected `maps` to be a file `asmaps\.pt` or a folder of maps, but there is"
    ):
        evaluate(tmp_path / "nowhere", root)
    with pytest.raises(ValueError, match=r"^Expected `data` to be a folder, but there is no folder"):
        evaluate(tree, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^Expected `device` to be a device of this machine, but got 'tpu9'"):
        evaluate(tree, root, device="tpu9")
    with pytest.raises(ValueError, match=r"^Expected `root` to be a folder, but there is no folder"):
        find_test_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^Expected `path` to be a file `asmaps\.pt`"):
        open_maps(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["one bad file", "another size"])
def test_advice_can_be_followed_to_the_letter(
    tmp_path: Path, data: tuple[Path, Arrays, Arrays], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """What an error advises is an option of the command, or a parameter of the library, and helps."""
    root, maps, _ = data
    if kind == "one bad file":
        tree, arguments, parameters = write_tree(tmp_path / "maps", maps), [], {}
        (tree / "screw/test/scratch/000.tiff").write_bytes(b"no image")
        advice, option = "skip_bad=True", "--skip-bad"
        arguments_then, parameters_then = ["--skip-bad"], {"skip_bad": True}
    else:
        full = {key: np.kron(scores, np.ones((2, 2), dtype=np.float32)) for key, scores in maps.items()}
        small = "screw/test/scratch/000"
        tree = write_tree(tmp_path / "maps", {**full, small: maps[small]})
        arguments, parameters = ["--no-resize"], {"resize": False}
        advice, option = "resize=False", "--no-resize"
        arguments_then, parameters_then = [], {}
    with pytest.raises(BadFilesError, match=rf"^1 file cannot be evaluated .*(\n.*)?`{advice}`"):
        evaluate(tree, root, fpr_bounds=BOUNDS, **parameters)
    assert evaluate(tree, root, fpr_bounds=BOUNDS, **parameters_then).categories
    assert main(["evaluate", str(tree), *options(root, *arguments)]) == 1
    error = capsys.readouterr().err
    assert f"`{option}`" in error
    assert advice not in error
    assert main(["evaluate", str(tree), *options(root, *arguments_then)]) == 0


def test_exact_scores_can_be_asked_for_by_name(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """`--num-thresholds None` is what errors about the number of thresholds advise, and it works."""
    tree = write_tree(tmp_path / "maps", data[1])
    assert main(["evaluate", str(tree), *options(data[0], "--num-thresholds", "None")]) == 0


def test_paths_may_be_texts(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """Whatever takes a path takes it as a text, too."""
    root, maps, _ = data
    tree = write_tree(tmp_path / "maps", maps)
    evaluate(str(tree), str(root), fpr_bounds=BOUNDS).save(str(tmp_path / "out"), heatmaps=True)
    assert (tmp_path / "out/bottle/aupimo/heatmaps.png").is_file()
    assert find_test_images(str(root)) == find_test_images(root)
    assert open_maps(str(tree)).names == open_maps(tree).names
    names = ["bottle/test/dirt/000.png"]
    assert open_maps(str(write_tensor(tmp_path / "asmaps.pt", maps, names))).names == names


def test_a_file_without_maps(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """A file `asmaps.pt` that holds no map is refused as such."""
    torch.save({"asmaps": torch.zeros(0, 2, 2), "paths": []}, tmp_path / "asmaps.pt")
    with pytest.raises(BadDataError, match=r"asmaps\.pt: an array of shape \(0, 2, 2\) is no map \(H, W\), nor a set"):
        evaluate(tmp_path / "asmaps.pt", data[0])


def test_paths_do_not_lead_out_of_the_folders(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """Paths with `..` and absolute paths reach no file outside of the data set."""
    root, _, _ = data
    secret = tmp_path / "secret.tiff"
    write_map(secret, np.zeros((4, 4), dtype=np.float32))
    names = ["../secret.tiff", str(secret), "bottle/../../secret.tiff"]
    torch.save({"asmaps": torch.zeros(3, 4, 4), "paths": names}, tmp_path / "asmaps.pt")
    with pytest.raises(BadFilesError) as caught:
        evaluate(tmp_path / "asmaps.pt", root)
    reasons = [bad_file.reason for bad_file in caught.value.bad_files if bad_file.path in names]
    assert reasons == ["a map without a test image"] * 3


def without_normal_images(folder: Path, data: tuple[Path, Arrays, Arrays], *categories: str) -> Path:
    """Remove the normal images of categories, and write maps of the others."""
    root, maps, _ = data
    normal = [f"{category}/test/good" for category in categories]
    for each in normal:
        for file in (root / each).iterdir():
            file.unlink()
    return write_tree(folder, {key: scores for key, scores in maps.items() if not key.startswith(tuple(normal))})


def test_categories_without_a_score_are_told(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """A category without normal images is NaN, with the reason in the summary and without pictures."""
    tree = without_normal_images(tmp_path / "maps", data, "screw")
    evaluation = evaluate(tree, data[0], fpr_bounds=BOUNDS, metrics=["aupimo", "auroc"])
    summary = evaluation.summary()
    assert "warning: screw: AUPIMO is undefined (NaN): none of the 3 images is normal" in summary
    assert evaluation.categories[1].warnings
    evaluation.save(tmp_path / "out")
    assert not list((tmp_path / "out/screw").rglob("*.png"))
    assert AUPIMOResult.load(tmp_path / "out/screw/aupimo/aupimos.json").aupimos.isnan().all()


@pytest.mark.parametrize("categories", [("screw",), ("bottle", "screw")])
def test_no_score_at_all_is_code_1(
    tmp_path: Path, data: tuple[Path, Arrays, Arrays], capsys: pytest.CaptureFixture[str], categories: tuple[str, ...]
) -> None:
    """If AUPIMO is NaN in every category the code is 1, after the table and the files; one score makes it 0."""
    tree, out = without_normal_images(tmp_path / "maps", data, *categories), tmp_path / "out"
    is_undefined = len(categories) == 2
    assert main(["evaluate", str(tree), *options(data[0], "--out", str(out))]) == int(is_undefined)
    printed, error = capsys.readouterr()
    assert "nan" in printed
    assert AUPIMOResult.load(out / "screw/aupimo/aupimos.json").aupimos.isnan().all()
    assert error.count("\n") == int(is_undefined)
    assert error.startswith("aupimo evaluate: no score came out" if is_undefined else "")


READ_WHOLE: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".pt": PIMOResult.load,
    ".csv": lambda path: path.read_text(encoding="utf-8"),
    ".safetensors": AUPIMOResult.load,
    ".png": lambda path: Image.open(path).load(),
}
"""What reads the files that the command writes; an unfinished file has another suffix."""


def read_all(terminal: int) -> str:
    """Read what comes from a terminal until nobody writes to it any more."""
    parts = []
    try:
        while part := os.read(terminal, 1000):
            parts.append(part)
    except OSError:  # how Linux says it
        pass
    os.close(terminal)
    return b"".join(parts).decode()


@pytest.mark.parametrize("moment", ["reading", "writing"])
def test_ctrl_c_stops_the_command(tmp_path: Path, moment: str) -> None:
    """Ctrl-C ends the command with code 1 and one line, and leaves files that are whole or none."""
    root, out = tmp_path / "data", tmp_path / "out"
    maps, _ = make_data(root)
    tree, key = write_tree(tmp_path / "maps", maps), next(iter(maps))
    for file in (root / f"{key}.png", tree / f"{key}.tiff"):
        for number in range(100, 2000):
            file.with_stem(f"{number}").hardlink_to(file)
    command = [sys.executable, "-m", "aupimo_torchmetrics", "evaluate", str(tree)]
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    terminal, end = pty.openpty()  # the progress bar is only for terminals, of some width
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with subprocess.Popen([*command, *options(root, "--out", str(out), "--heatmaps")], stderr=end) as process:  # noqa: S603
        os.close(end)
        if moment == "reading":
            shown = b""
            while b"bottle" not in shown:  # what the bar says first; an empty bar cannot be closed by tqdm
                shown += os.read(terminal, 1000)
        else:
            while not out.exists():
                time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        rest = read_all(terminal)
    assert process.returncode == 1
    last = rest.strip().splitlines()[-1]
    assert last.startswith("aupimo evaluate: stopped; ")
    assert "Traceback" not in rest
    if moment == "reading":
        assert last.endswith("nothing was written")
        assert not out.exists()
    assert not list(out.rglob("*unfinished*"))
    for path in out.rglob("*"):
        if path.is_file():
            READ_WHOLE[path.suffix](path)
