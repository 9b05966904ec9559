"""`aupimo evaluate` scores what lies on disk as the definition says, and names every file that it cannot score."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from data_sets import write_image, write_map
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult, PIMOResult
from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.evaluate import BadFilesError, evaluate, find_test_images, open_maps

BOUNDS = (1e-2, 1e-1)
FLOAT32 = 2e-6
"""Maps resized in float32 and in float64 differ by their rounding, which moves a curve's steps by as much."""
DEFECTS = {"bottle": ("broken", "dirt"), "screw": ("scratch",)}
SIZES = {"bottle": (24, 30), "screw": (20, 20)}

Arrays = dict[str, NDArray[Any]]


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
    assert "resized bilinearly to the size of their masks, as 10 x 10 to 20 x 20." in "\n".join(table)
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


def spoil(root: Path, tree: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Make bad files of each kind, and keep images of each class.

    Return a part of the path and a reason of each: of those that are seen from names, and of those that are read.
    """
    dirt = root / "bottle/test/dirt/003.png"
    shutil.copy(dirt.with_stem("002"), dirt)
    shutil.copy(root / "bottle/ground_truth/dirt/002_mask.png", root / "bottle/ground_truth/dirt/003_mask.png")
    shutil.copy(tree / "bottle/test/dirt/002.tiff", tree / "bottle/test/dirt/003.tiff")
    (root / "bottle/ground_truth/broken/000_mask.png").unlink()
    write_image(root / "bottle/ground_truth/broken/001_mask.png", np.zeros((24, 30), dtype=np.uint8))
    (root / "bottle/ground_truth/broken/002_mask.png").write_bytes(b"no image")
    (tree / "bottle/test/dirt/000.tiff").unlink()
    (tree / "bottle/test/dirt/001.tiff").write_bytes((tree / "bottle/test/dirt/001.tiff").read_bytes()[:100])
    write_map(tree / "bottle/test/dirt/002.tiff", np.full((12, 15), np.nan, dtype=np.float32))
    write_map(tree / "bottle/test/nowhere/000.npy", np.zeros((2, 2)))
    write_map(tree / "bottle/test/good/000.npy", np.zeros((2, 2)))
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


def test_bad_files_are_listed_all_at_once(
    tmp_path: Path, data: tuple[Path, Arrays, Arrays], capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad files are named with their reasons, all that are seen from names before any is read; `--skip-bad` goes on."""
    root, maps, _ = data
    tree, out = write_tree(tmp_path / "maps", maps), tmp_path / "out"
    named, read = spoil(root, tree)
    assert main(["evaluate", str(tree), *options(root, "--out", str(out))]) == 1
    head, *lines = capsys.readouterr().err.splitlines()
    assert f"aupimo evaluate: {len(named)} files cannot be evaluated (`--skip-bad` goes on without them, " in head
    assert not out.exists()
    assert main(["evaluate", str(tree), *options(root, "--skip-bad")]) == 0
    skipped = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: ")]
    for found, expected in ((lines, named), (skipped, named | read)):
        assert len(found) == len(expected)
        for path, reason in expected.items():
            assert [line for line in found if path in line and reason in line], path


ERRORS = {
    "nowhere.pt --data data": (2, "`MAPS` to be a file `asmaps.pt` or a folder of maps, but"),
    "maps --data nowhere": (2, "`--data` to be a folder, but there is no folder nowhere"),
    "data/split --data data": (1, "data/split to hold maps (.tiff, .tif, .png, .npy, .npz, .pt, .pth)"),
    "maps --data data/bottle/ground_truth": (1, "in one layout, but it fits none. Give another folder"),
    "maps --data data --layout folder": (1, "in the layout 'folder', but it fits `--layout mvtec`"),
    "maps --data data --fpr-bounds 0.1 0.01": (2, "`--fpr-bounds` to satisfy 0 < lower < upper <= 1, but got (0.1, "),
    "maps --data data --num-thresholds 1": (2, "`--num-thresholds` to be None or at least 2, but got 1"),
    "maps --data data --num-thresholds x": (2, "argument --num-thresholds: invalid int value: 'x'"),
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
    "maps --data data --fpr-bounds nan 1": (2, "but got (nan, 1)"),
    "maps --data data --mask-threshold inf": (2, "`--mask-threshold` to be None or a finite number, but got inf"),
    "maps --data data --format gif": (2, "argument --format: invalid choice: 'gif'"),
    "maps --data data --by image": (2, "argument --by: invalid choice: 'image'"),
    "maps --data data --device cuda:99": (2, "`--device` to be a device of this machine, but got 'cuda:99'"),
    "maps --data data --device meta": (2, "`--device` to be a device of this machine, but got 'meta'"),
    "maps --data data --out maps/bottle/test/good/000.tiff": (1, "000.tiff"),
}
"""Arguments, the exit code, and a part of the line on standard error."""


@pytest.mark.parametrize("arguments", ERRORS)
def test_errors_are_one_line_and_the_code_of_the_table(
    tmp_path: Path,
    data: tuple[Path, Arrays, Arrays],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
) -> None:
    """A wrong command ends with code 2, unfit data with code 1, and one line says why in the words of the command."""
    write_tree(tmp_path / "maps", data[1])
    (tmp_path / "data/split").mkdir()
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["evaluate", *arguments.split()])
    except SystemExit as error:
        code = error.code
    expected, message = ERRORS[arguments]
    assert code == expected
    line, *needs = capsys.readouterr().err.strip().splitlines()
    assert bool(needs) == ("ground_truth" in arguments or "folder" in arguments.split())  # what each layout needs
    assert line.startswith("aupimo evaluate: ")
    assert message in line


def test_errors_of_the_library_name_its_parameters(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """Who calls `evaluate` reads of `maps`, `data` and `device`, and never of options."""
    tree = write_tree(tmp_path / "maps", data[1])
    wrong: dict[str, dict[str, Any]] = {
        "`maps` to be a file `asmaps.pt` or a folder of maps": {"maps": tmp_path / "nowhere"},
        "`data` to be a folder, but there is no folder": {"data": tmp_path / "nowhere"},
        "`device` to be a device of this machine, but got 'tpu9'": {"device": "tpu9"},
        "exactly one of `data` and `table`, but got neither": {"data": None},
        "`layout` to be 'auto'": {"layout": "mvtek"},
    }
    for message, settings in wrong.items():
        with pytest.raises(ValueError, match=f"^Expected {message}"):
            evaluate(**{"maps": tree, "data": data[0], **settings})


@pytest.mark.parametrize("kind", ["one bad file", "another size"])
def test_advice_can_be_followed_to_the_letter(
    tmp_path: Path, data: tuple[Path, Arrays, Arrays], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """What an error advises is an option of the command, and helps."""
    root, maps, _ = data
    tree = write_tree(tmp_path / "maps", maps)
    before, advice, after = ([], "`--skip-bad`", ["--skip-bad"])
    if kind == "one bad file":
        (tree / "screw/test/scratch/000.tiff").write_bytes(b"no image")
    else:
        before, advice, after = ["--no-resize"], "`--no-resize`", []
    assert main(["evaluate", str(tree), *options(root, *before)]) == 1
    assert advice in capsys.readouterr().err
    assert main(["evaluate", str(tree), *options(root, *after, "--num-thresholds", "None")]) == 0


def test_paths_may_be_texts(tmp_path: Path, data: tuple[Path, Arrays, Arrays]) -> None:
    """Whatever takes a path takes it as a text, too."""
    root, maps, _ = data
    tree = write_tree(tmp_path / "maps", maps)
    evaluate(str(tree), str(root), fpr_bounds=BOUNDS).save(str(tmp_path / "out"), heatmaps=True)
    assert (tmp_path / "out/bottle/aupimo/heatmaps.png").is_file()
    assert find_test_images(str(root)) == find_test_images(root)
    assert open_maps(str(tree)).names == open_maps(tree).names


@pytest.mark.parametrize("categories", [("screw",), ("bottle", "screw")])
def test_no_score_at_all_is_code_1(
    tmp_path: Path, data: tuple[Path, Arrays, Arrays], capsys: pytest.CaptureFixture[str], categories: tuple[str, ...]
) -> None:
    """A category without normal images is NaN, with the reason and without pictures; if all are, the code is 1."""
    root, maps, _ = data
    tree, out = write_tree(tmp_path / "maps", maps), tmp_path / "out"
    for category in categories:
        shutil.rmtree(root / f"{category}/test/good")
        shutil.rmtree(tree / f"{category}/test/good")
    is_undefined = len(categories) == 2
    assert main(["evaluate", str(tree), *options(root, "--out", str(out))]) == int(is_undefined)
    printed, error = capsys.readouterr()
    assert f"{categories[0]}: AUPIMO is undefined (NaN): none of the" in printed
    assert AUPIMOResult.load(out / "screw/aupimo/aupimos.json").aupimos.isnan().all()
    assert not list((out / "screw").rglob("*.png"))
    assert error.count("\n") == int(is_undefined)
    assert error.startswith("aupimo evaluate: no score came out" if is_undefined else "")
