"""`aupimo evaluate` scores what lies on disk as the definition says, and names every file that it cannot score."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import reference
import torch
from data_sets import write_example, write_image, write_map
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult, PIMOResult
from aupimo_torchmetrics.evaluate import BadFilesError, evaluate

BOUNDS = (1e-2, 1e-1)
FLOAT32 = 2e-6
"""Maps resized in float32 and in float64 differ by their rounding, which moves a curve's steps by as much."""
DEFECTS = {"bottle": ("broken", "dirt"), "screw": ("scratch",)}
SIZES = {"bottle": (24, 30), "screw": (20, 20)}
TWICE = np.ones((2, 2), dtype=np.float32)
"""Enlarges a map twofold, as a factor of `np.kron`."""

Arrays = dict[str, NDArray[Any]]


class Data(NamedTuple):
    """A data set of two categories on disk, and maps for it of half the size of its masks."""

    root: Path
    """In the layout of MVTec AD."""
    tree: Path
    """Folder of maps laid out like their images."""
    maps: Arrays
    """By key."""
    masks: Arrays


def write_tree(folder: Path, maps: Arrays) -> Path:
    """Write maps laid out like their images."""
    for key, scores in maps.items():
        write_map(folder / f"{key}.tiff", scores)
    return folder


def expected_values(data: Data, category: str) -> dict[str, Any]:
    """Score a category by the definitions, with the masks' size brought about by loops."""
    keys = sorted(key for key in data.maps if key.startswith(category))
    masks = [data.masks[key] for key in keys]
    resized = [reference.resize(data.maps[key].astype(np.float64), *data.masks[key].shape) for key in keys]
    return {
        "paths": [f"{key}.png" for key in keys],
        "aupimos": pytest.approx(reference.aupimo(resized, masks, BOUNDS), abs=FLOAT32, nan_ok=True),
        **reference.all_metrics(resized, masks),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Write the data set and its maps."""
    folder = tmp_path_factory.mktemp("evaluate")
    random = np.random.default_rng(0)
    maps, masks = {}, {}
    for category, defects in DEFECTS.items():
        for defect, number in itertools.product(("good", *defects), range(3)):
            key = f"{category}/test/{defect}/{number:03}"
            mask = np.zeros(SIZES[category], dtype=bool)
            if defect != "good":
                mask[5 : 9 + number, 4:10] = True
                mask[-2:, -3:] = True  # a second region
            small = mask[::2, ::2]
            maps[key] = (random.normal(size=small.shape) + 1.5 * small).astype(np.float32)
            masks[key] = mask
            write_example(folder, key, maps[key], mask)
    return Data(folder / "data", folder / "maps", maps, masks)


@pytest.fixture
def copied(tmp_path: Path, data: Data) -> Data:
    """A copy of the data set and its maps, which may be changed."""
    root, tree = (shutil.copytree(folder, tmp_path / folder.name) for folder in (data.root, data.tree))
    return data._replace(root=root, tree=tree)


COMMAND = "evaluate --fpr-bounds 1e-2 1e-1"


def test_files_hold_the_defined_scores(tmp_path: Path, data: Data, printed: Any) -> None:
    """A tree of maps of half the masks' size scores as slow loops say, in all four metrics and in every file."""
    out, names = tmp_path / "out", ("auroc", "aupr", "aupro")
    table = printed(COMMAND, data.tree, "--data", data.root, "--out", out, "--metrics", "aupimo", *names).splitlines()
    assert table[0].split() == ["category", "normal", "defect", "AUPIMO", "AUROC", "AUPR", "AUPRO"]
    rows = []
    for category, line in zip(DEFECTS, table[1:], strict=False):
        expected, folder = expected_values(data, category), out / category / "aupimo"
        result = AUPIMOResult.load(folder / "aupimos.json")
        assert (result.paths, result.aupimos.tolist()) == (expected["paths"], expected["aupimos"])
        assert (result.fpr_bounds, result.num_thresholds) == (BOUNDS, None)
        values = [np.nanmean(result.aupimos), *(expected[name] for name in names)]
        for name in names:
            value = json.loads((out / category / f"{name}.json").read_text(encoding="utf-8"))["value"]
            assert value == pytest.approx(expected[name], abs=FLOAT32)
        row = line.split()
        assert row[:3] == [category, "3", str(3 * len(DEFECTS[category]))]
        assert [float(value) for value in row[3:]] == pytest.approx(values, abs=1e-4)
        rows.append(values)
        assert PIMOResult.load(folder / "curves.pt").per_image_tprs.shape[0] == len(expected["paths"])
        for picture in ("distribution", "curves"):
            with Image.open(folder / f"{picture}.png") as image:
                assert image.width > 300
    assert [float(value) for value in table[3].split()[1:]] == pytest.approx(np.mean(rows, axis=0), abs=1e-4)
    assert "resized bilinearly to the size of their masks, as 10 x 10 to 20 x 20." in "\n".join(table)
    assert not [file for file in out.rglob("*") if "unfinished" in file.name]


def test_official_maps_are_scored_beside_them(tmp_path: Path, data: Data, printed: Any) -> None:
    """`asmaps.pt` in any order, with paths that begin with the collection, leaves `aupimo/aupimos.json` beside it.

    AUPIMO alone needs no counts beside what it keeps.
    """
    keys = [key for key in data.maps if key.startswith("bottle")]
    np.random.default_rng(1).shuffle(keys)
    asmaps = torch.from_numpy(np.stack([data.maps[key] for key in keys]))
    (tmp_path / "model").mkdir()
    torch.save({"asmaps": asmaps, "paths": [f"MVTec/{key}.png" for key in keys]}, tmp_path / "model/asmaps.pt")
    told = printed(COMMAND, tmp_path / "model/asmaps.pt", "--data", data.root)
    expected = expected_values(data, "bottle")
    result = AUPIMOResult.load(tmp_path / "model/aupimo/aupimos.json")
    assert (result.paths, result.aupimos.tolist()) == (expected["paths"], expected["aupimos"])
    assert "AUPIMO, exact" in told
    assert "not evaluated, as there is no map: screw\n" in told
    assert not (tmp_path / "model" / "screw").exists()
    assert not (tmp_path / "model/aupimo/counts.safetensors").exists()


def test_sampled_thresholds_and_the_category_alone(data: Data) -> None:
    """A single category may be given as root, and thresholds may be sampled."""
    evaluation = evaluate(data.tree / "screw", data.root / "screw", fpr_bounds=BOUNDS, num_thresholds=5000)
    (scores,) = evaluation.categories
    exact = evaluate(data.tree, data.root, fpr_bounds=BOUNDS).categories[1].result
    assert (scores.category, scores.result.num_thresholds) == ("screw", 5000)
    # 1,200 normal pixels have fewer distinct scores than thresholds: sampling misses the bounds by a pixel at most
    assert scores.result.aupimos.tolist() == pytest.approx(exact.aupimos.tolist(), abs=0.05, nan_ok=True)
    assert any("5000 thresholds" in line for line in evaluation.summary().splitlines())


def test_maps_that_must_have_the_size_of_their_masks(tmp_path: Path, data: Data) -> None:
    """With `resize=False` a map of another size is a bad file, and one of the right size is taken as it is."""
    message = r"the map is \(12, 15\), its mask \(24, 30\); without `resize=False` it would be resized"
    with pytest.raises(BadFilesError, match=message):
        evaluate(data.tree, data.root, fpr_bounds=BOUNDS, resize=False)
    full = {key: np.kron(scores, TWICE) for key, scores in data.maps.items()}
    evaluation = evaluate(write_tree(tmp_path / "full", full), data.root, fpr_bounds=BOUNDS, resize=False)
    for scores in evaluation.categories:
        keys = sorted(key for key in full if key.startswith(scores.category))
        expected = reference.aupimo([full[key] for key in keys], [data.masks[key] for key in keys], BOUNDS)
        assert scores.result.aupimos.tolist() == pytest.approx(expected, abs=FLOAT32, nan_ok=True)


def test_paths_do_not_lead_out_of_the_folders(tmp_path: Path, data: Data) -> None:
    """Paths with `..` and absolute paths reach no file outside of the data set."""
    secret = tmp_path / "secret.tiff"
    write_map(secret, np.zeros((4, 4), dtype=np.float32))
    names = ["../secret.tiff", str(secret), "bottle/../../secret.tiff"]
    torch.save({"asmaps": torch.zeros(3, 4, 4), "paths": names}, tmp_path / "asmaps.pt")
    with pytest.raises(BadFilesError) as caught:
        evaluate(tmp_path / "asmaps.pt", data.root)
    assert {(name, "a map without a test image") for name in names} == {*caught.value.bad_files}


def spoil(root: Path, tree: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Make bad files of each kind, and keep images of each class.

    Return a part of the path and a reason of each: of those that are seen from names, and of those that are read.
    """
    masks, images, maps = root / "bottle/ground_truth", root / "bottle/test", tree / "bottle/test"
    for path in (images / "dirt/002.png", masks / "dirt/002_mask.png", maps / "dirt/002.tiff"):
        shutil.copy(path, path.with_name(path.name.replace("002", "003")))
    (masks / "broken/000_mask.png").unlink()
    write_image(masks / "broken/001_mask.png", np.zeros((24, 30), dtype=np.uint8))
    (masks / "broken/002_mask.png").write_bytes(b"no image")
    (maps / "dirt/000.tiff").unlink()
    (maps / "dirt/001.tiff").write_bytes((maps / "dirt/001.tiff").read_bytes()[:100])
    write_map(maps / "dirt/002.tiff", np.full((12, 15), np.nan, dtype=np.float32))
    write_map(maps / "nowhere/000.npy", np.zeros((2, 2)))
    write_map(maps / "good/000.npy", np.zeros((2, 2)))
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
    }
    return named, read


def test_bad_files_are_listed_all_at_once(tmp_path: Path, copied: Data, aupimo: Any, printed: Any) -> None:
    """Bad files are named with their reasons, all that are seen from names before any is read; `--skip-bad` goes on."""
    named, read = spoil(copied.root, copied.tree)
    code, _, err = aupimo(COMMAND, copied.tree, "--data", copied.root, "--out", tmp_path / "out")
    head, *lines = err.splitlines()
    assert code == 1
    assert f"aupimo evaluate: {len(named)} files cannot be evaluated (`--skip-bad` goes on without them, " in head
    assert not (tmp_path / "out").exists()
    told = printed(COMMAND, copied.tree, "--data", copied.root, "--skip-bad")
    skipped = [line for line in told.splitlines() if line.startswith("skipped: ")]
    for found, expected in ((lines, named), (skipped, named | read)):
        assert len(found) == len(expected)
        for path, reason in expected.items():
            assert [line for line in found if path in line and reason in line], path


ERRORS = {
    "nowhere.pt --data data": (2, "`MAPS` to be a file `asmaps.pt` or a folder of maps, but"),
    "maps --data nowhere": (2, "`--data` to be a folder, but there is no folder nowhere"),
    "empty --data data": (1, "empty to hold maps (.tiff, .tif, .png, .npy, .npz, .pt, .pth)"),
    "maps --data data/bottle/ground_truth": (1, "in one layout, but it fits none. Give another folder"),
    "maps --data data --layout folder": (1, "in the layout 'folder', but it fits `--layout mvtec`"),
    "maps --data data --fpr-bounds 0.1 0.01": (2, "`--fpr-bounds` to satisfy 0 < lower < upper <= 1, but got (0.1, "),
    "maps --data data --num-thresholds 1": (2, "`--num-thresholds` to be None or at least 2, but got 1"),
    "maps --data data --metrics f1": (2, "invalid choice: 'f1'"),
    "maps --data data --num-bins 1000": (2, "`--num-bins` to be None or a power of two"),
    "maps --data data --report": (2, "Expected `--out` with `--report`, which is written"),
    "maps --data data --heatmaps": (2, "Expected `--out` with `--heatmaps`, which is written"),
    "maps --data data --normal-folder x": (2, "`--normal-folder` to name folders of images, but there is no 'x'"),
    "--write-table t.csv": (2, "Expected `--data` with `--write-table`, but got none"),
    "maps": (2, "exactly one of `--data` and `--table`, but got neither"),
    "maps --data data --table t.csv": (2, "of `--data` and `--table`, but got both"),
    "--data data": (2, "Expected `MAPS`, as only a `--table` can name the map of each image"),
    "maps --table t.csv": (2, "`--table` to be a file, but there is no file t.csv"),
    "maps --table t.csv --normal-folder ok": (2, "`--layout` and `--normal-folder` with `--data` only, but got"),
    "--table t.csv --map-suffix .npy": (2, "`--map-suffix` with `MAPS` only"),
    "maps --data data --mask-threshold inf": (2, "`--mask-threshold` to be None or a finite number, but got inf"),
    "maps --data data --device cuda:99": (2, "`--device` to be a device of this machine, but got 'cuda:99'"),
    "maps --data data --out maps/bottle/test/good/000.tiff": (1, "000.tiff"),
}
"""Arguments, the exit code, and a part of the line on standard error."""


@pytest.mark.parametrize("arguments", ERRORS)
def test_errors_are_one_line_and_the_code_of_the_table(
    data: Data, monkeypatch: pytest.MonkeyPatch, aupimo: Any, arguments: str
) -> None:
    """A wrong command ends with code 2, unfit data with code 1, and one line says why in the words of the command."""
    monkeypatch.chdir(data.root.parent)
    Path("empty").mkdir(exist_ok=True)
    expected, message = ERRORS[arguments]
    code, _, err = aupimo(f"evaluate {arguments}")
    line, *needs = err.splitlines()
    assert code == expected
    assert bool(needs) == ("ground_truth" in arguments or "folder" in arguments.split())  # what each layout needs
    assert line.startswith("aupimo evaluate: ")
    assert message in line


def test_errors_of_the_library_name_its_parameters(data: Data) -> None:
    """Who calls `evaluate` reads of `maps`, `data` and `device`, and never of options."""
    wrong: dict[str, dict[str, Any]] = {
        "`maps` to be a file `asmaps.pt` or a folder of maps": {"maps": data.root / "nowhere"},
        "`data` to be a folder, but there is no folder": {"data": data.root / "nowhere"},
        "`device` to be a device of this machine, but got 'tpu9'": {"device": "tpu9"},
        "exactly one of `data` and `table`, but got neither": {"data": None},
        "`layout` to be 'auto'": {"layout": "mvtek"},
    }
    for message, settings in wrong.items():
        with pytest.raises(ValueError, match=f"^Expected {message}"):
            evaluate(**{"maps": data.tree, "data": data.root, **settings})


def test_advice_can_be_followed_to_the_letter(copied: Data, aupimo: Any) -> None:
    """What an error advises is an option of the command, and helps."""
    given = (copied.tree, "--data", copied.root)
    code, _, err = aupimo(f"{COMMAND} --no-resize", *given)
    assert (code, "`--no-resize`" in err) == (1, True)
    assert aupimo(f"{COMMAND} --num-thresholds None", *given)[0] == 0


@pytest.mark.parametrize("categories", [("screw",), ("bottle", "screw")])
def test_no_score_at_all_is_code_1(tmp_path: Path, copied: Data, aupimo: Any, categories: tuple[str, ...]) -> None:
    """A category without normal images is NaN, with the reason and without pictures; if all are, the code is 1."""
    for folder in [root / category / "test/good" for category in categories for root in (copied.root, copied.tree)]:
        shutil.rmtree(folder)
    is_undefined = len(categories) == 2
    code, told, error = aupimo(f"{COMMAND} --heatmaps --out", tmp_path / "out", copied.tree, "--data", copied.root)
    assert code == int(is_undefined)
    assert f"{categories[0]}: AUPIMO is undefined (NaN): none of the" in told
    assert AUPIMOResult.load(tmp_path / "out/screw/aupimo/aupimos.json").aupimos.isnan().all()
    pictures = {path.relative_to(tmp_path / "out/bottle/aupimo").stem for path in (tmp_path / "out").rglob("*.png")}
    assert pictures == (set() if is_undefined else {"distribution", "curves", "heatmaps"})
    assert error.count("\n") == int(is_undefined)
    assert error.startswith("aupimo evaluate: no score came out" if is_undefined else "")
