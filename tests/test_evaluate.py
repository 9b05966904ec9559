"""`aupimo evaluate` scores what lies on disk, wherever it is said to lie, and names every file that it cannot score."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import reference
import tifffile
import torch
from data_sets import BOUNDS, COMMAND, SIZE, Known, strict_json, write_image, write_known, write_map, write_set
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics import AUPIMOResult, PIMOResult
from aupimo_torchmetrics.evaluate import BadFilesError, Evaluation, evaluate, find_test_images
from aupimo_torchmetrics.evaluate.data.table import write_table

FLOAT32 = 2e-6
"""Maps resized in float32 and in float64 differ by their rounding, which moves a curve's steps by as much."""
TYPES = {"bottle": {"good": 3, "broken": 3, "dirt": 3}, "screw": {"good": 3, "scratch": 3}}
SIZES = {"bottle": (24, 30), "screw": (20, 20)}
TWICE = np.ones((2, 2), dtype=np.float32)
"""Enlarges a map twofold, as a factor of `np.kron`."""


class Data(NamedTuple):
    """A data set of two categories on disk, and maps for it of half the size of its masks."""

    tree: Path
    """Folder of maps laid out like their images."""
    root: Path
    """In the layout of MVTec AD."""
    known: list[Known]

    def of(self, category: str) -> tuple[list[str], list[NDArray[Any]], list[NDArray[Any]]]:
        """Paths, maps and masks of a category."""
        images = sorted((each for each in self.known if each.category == category), key=lambda each: each.path)
        return [each.path for each in images], [each.scores for each in images], [each.mask > 0 for each in images]


def expected_values(data: Data, category: str) -> dict[str, Any]:
    """Score a category by the definitions, with the masks' size brought about by loops."""
    paths, maps, masks = data.of(category)
    resized = [reference.resize(scores.astype(np.float64), *SIZES[category]) for scores in maps]
    return {
        "paths": paths,
        "aupimos": pytest.approx(reference.aupimo(resized, masks, BOUNDS), abs=FLOAT32, nan_ok=True),
        **reference.all_metrics(resized, masks),
    }


def draw_small(random: np.random.Generator, is_defect: NDArray[Any], _: int) -> NDArray[Any]:
    """Draw a map of half the size."""
    small = is_defect[::2, ::2]
    return (random.normal(size=small.shape) + 1.5 * small).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Write the data set and its maps."""
    return Data(*write_known(tmp_path_factory.mktemp("evaluate"), TYPES, SIZES, draw_small))


@pytest.fixture
def copied(tmp_path: Path, data: Data) -> Data:
    """A copy of the data set and its maps, which may be changed."""
    root, tree = (shutil.copytree(folder, tmp_path / folder.name) for folder in (data.root, data.tree))
    return data._replace(root=root, tree=tree)


def test_files_hold_the_defined_scores(tmp_path: Path, data: Data, printed: Any) -> None:
    """A tree of maps of half the masks' size scores as slow loops say, in all four metrics and in every file."""
    out, names = tmp_path / "out", ("auroc", "aupr", "aupro")
    command = f"{COMMAND} --num-thresholds None --metrics aupimo auroc aupr aupro --out"
    table = printed(command, out, "--data", data.root, data.tree).splitlines()
    assert table[0].split() == ["category", "normal", "defect", "AUPIMO", "AUROC", "AUPR", "AUPRO"]
    rows = []
    for category, line in zip(TYPES, table[1:], strict=False):
        expected, folder = expected_values(data, category), out / category / "aupimo"
        result = AUPIMOResult.load(folder / "aupimos.json")
        assert (result.paths, result.aupimos.tolist()) == (expected["paths"], expected["aupimos"])
        assert (result.fpr_bounds, result.num_thresholds) == (BOUNDS, None)
        values = [np.nanmean(result.aupimos), *(expected[name] for name in names)]
        for name in names:
            value = json.loads((out / category / f"{name}.json").read_text(encoding="utf-8"))["value"]
            assert value == pytest.approx(expected[name], abs=FLOAT32)
        row = line.split()
        assert row[:3] == [category, "3", str(3 * len(TYPES[category]) - 3)]
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
    paths, maps, _ = data.of("bottle")
    asmaps = {"asmaps": torch.from_numpy(np.stack(maps[::-1])), "paths": [f"MVTec/{path}" for path in paths[::-1]]}
    (tmp_path / "model").mkdir()
    torch.save(asmaps, tmp_path / "model/asmaps.pt")
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


def test_maps_that_must_have_the_size_of_their_masks(tmp_path: Path, data: Data, aupimo: Any) -> None:
    """With `resize=False` or `--no-resize` only maps of the right size are taken, as they are."""
    code, _, err = aupimo(f"{COMMAND} --no-resize", data.tree, "--data", data.root)
    message = "the map is (12, 15), its mask (24, 30); without `--no-resize` it would be resized"
    assert (code, message in err) == (1, True)
    for each in data.known:
        write_map((tmp_path / each.path).with_suffix(".tiff"), np.kron(each.scores, TWICE))
    for scores in evaluate(tmp_path, data.root, fpr_bounds=BOUNDS, resize=False).categories:
        _, maps, masks = data.of(scores.category)
        expected = reference.aupimo([np.kron(each, TWICE) for each in maps], masks, BOUNDS)
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


@pytest.mark.parametrize("categories", [("screw",), ("bottle", "screw")])
def test_no_score_at_all_is_code_1(tmp_path: Path, copied: Data, aupimo: Any, categories: tuple[str, ...]) -> None:
    """A category without normal images is NaN, with the reason and without pictures; if all are, the code is 1.

    In JSON, of which there is nothing else on standard output, it is null.
    """
    for folder in [root / category / "test/good" for category in categories for root in (copied.root, copied.tree)]:
        shutil.rmtree(folder)
    is_undefined = len(categories) == 2
    command = f"{COMMAND} --heatmaps --json --out"
    code, told, error = aupimo(command, tmp_path / "out", copied.tree, "--data", copied.root)
    assert code == int(is_undefined)
    summary = strict_json(told)
    assert (summary["mean"]["aupimo"] is None) == is_undefined
    (text,) = (each["text"] for each in summary["warnings"] if each["category"] == categories[0])
    assert text.startswith("AUPIMO is undefined (NaN): none of the")
    assert AUPIMOResult.load(tmp_path / "out/screw/aupimo/aupimos.json").aupimos.isnan().all()
    pictures = {path.relative_to(tmp_path / "out/bottle/aupimo").stem for path in (tmp_path / "out").rglob("*.png")}
    assert pictures == (set() if is_undefined else {"distribution", "curves", "heatmaps"})
    assert error.count("\n") == int(is_undefined)
    assert error.startswith("aupimo evaluate: no score came out" if is_undefined else "")


Sources = tuple[Path, Path]


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of maps and of data: 3 normal images in `fine`, 2 with a defect in `crack`."""
    maps, data = write_set(tmp_path, {"part": {"good": 3, "crack": 2}})
    for folder in (maps, data):
        (folder / "part/test/good").rename(folder / "part/test/fine")
    return maps, data


def with_maps(table: pd.DataFrame) -> pd.DataFrame:
    """The table of the images with a column of maps."""
    return table.assign(map="maps/" + table["name"].str.replace(".png", ".tiff"))


def scores_of(maps: Path | None, data: Path | None, **settings: object) -> Evaluation:
    """Evaluate maps of the images."""
    normal_folder = {"normal_folder": "fine"} if data is not None else {}
    return evaluate(maps, data, fpr_bounds=BOUNDS, **normal_folder, **settings)


def mean_of(maps: Path | None, data: Path | None, **settings: object) -> float:
    """Score of the only category."""
    (scores,) = scores_of(maps, data, **settings).categories
    return scores.result.mean


def as_set(path: Path, files: list[Path], names: list[str]) -> Path:
    """Write maps as the official package does."""
    torch.save(
        {"asmaps": torch.stack([torch.from_numpy(tifffile.imread(file)) for file in files]), "paths": names}, path
    )
    return path


MATCHED = {
    "equal": ("part", "", "", None),
    "a run": ("run/part", "", "", "maps/run/part/test/crack/000.tiff -> part/test/crack/000.png"),
    "equal below the category": ("part", "part", "part", None),
    "deeper": ("part", "part/test", "part", "test/crack/000.tiff -> part/test/crack/000.png"),
    "below a run": ("part/run", "part/run", "part", None),
    "no folder of the category": ("", "", "part", "maps/test/crack/000.tiff -> part/test/crack/000.png"),
}
"""Where the maps lie, which folder of maps and of data is given, and which example the summary has."""


@pytest.mark.parametrize("case", MATCHED)
def test_the_summary_says_which_map_was_taken_for_which_image(sources: Sources, case: str) -> None:
    """One example is given in text and JSON, unless the paths are equal but for the suffix; and no warning."""
    maps, data = sources
    place, of_maps, of_data, example = MATCHED[case]
    moved = (maps / "part/test").rename(data.parent / "test")
    (maps / place).mkdir(parents=True, exist_ok=True)
    moved.rename(maps / place / "test")
    evaluation = scores_of(maps / of_maps, data / of_data)
    expected = [] if example is None else [f"maps were matched by their paths, as {example}"]
    assert evaluation.notes == evaluation.to_dict()["notes"] == expected
    assert all(line in evaluation.summary().splitlines() for line in expected)
    assert not any(" lie in " in text for text in evaluation.categories[0].warnings)


@pytest.mark.parametrize("kind", ["in the maps", "given", "its test", "in a set", "beside a set"])
def test_maps_of_another_category(sources: Sources, kind: str) -> None:
    """They are refused, or where their own paths do not say the category, there is a warning that names both."""
    maps, data = sources
    folder = maps / "runs/gear"
    (data / "gear").mkdir()
    (maps / "runs").mkdir()
    (maps / "part").rename(folder)
    given = {"in the maps": folder.parent, "given": folder, "its test": folder / "test"}.get(kind, folder / "asmaps.pt")
    if "set" in kind:
        files, start = sorted(folder.rglob("*.tiff")), folder.parent if kind == "in a set" else folder
        as_set(given, files, [path.relative_to(start).as_posix() for path in files])
    if kind.startswith("in "):
        with pytest.raises(BadFilesError, match=r"as gear/test/crack/000\.tiff and part/test/crack/000\.png: give"):
            scores_of(given, data / "part")
        return
    evaluation = scores_of(given, data / "part")
    (warning,) = (text for text in evaluation.categories[0].warnings if " lie in " in text)
    assert "the maps lie in gear, the images in part, as " in warning
    assert f"warning: part: {warning}" in evaluation.summary()


def test_what_is_advised_where_no_path_fits_is_right(tmp_path: Path, sources: Sources) -> None:
    """A folder of maps, a table that names each map, and one that names the paths of a set give the same score.

    So does the folder of one seed, where that of all seeds was given.
    """
    maps, data = sources
    expected, path = mean_of(maps, data), tmp_path / "table.csv"
    for seed in ("seed0", "seed1"):
        shutil.copytree(maps / "part", tmp_path / "runs" / seed / "part")
    with pytest.raises(BadFilesError, match=r"as seed0/part/.* and seed1/part/.*; the folder of one of them as `maps`"):
        scores_of(tmp_path / "runs", data)
    assert mean_of(tmp_path / "runs/seed1", data) == expected
    (maps / "part").rename(maps / "engine")
    with pytest.raises(BadFilesError, match="give as `maps` the folder below which the paths agree, or a `table`"):
        scores_of(maps, data)
    assert mean_of(maps / "engine", data / "part") == expected
    write_table(find_test_images(data, normal_folder="fine"), path)
    table = with_maps(pd.read_csv(path, keep_default_na=False))
    files = table["map"].str.replace("part", "engine")
    table.assign(map=files).to_csv(path, index=False)
    assert mean_of(None, None, table=path) == expected
    names = ["D:\\" + file.replace(".tiff", ".png").replace("/", "\\") for file in files]
    asmaps = as_set(tmp_path / "asmaps.pt", [tmp_path / file for file in files], names)
    table.assign(name=names).to_csv(path, index=False)
    assert mean_of(asmaps, None, table=path) == expected


@pytest.mark.parametrize("suffix", [".tiff", ".npy", "set"])
def test_maps_and_data_the_wrong_way_round(sources: Sources, suffix: str) -> None:
    """Who swaps them is told so, whether maps look like images or not."""
    maps, data = sources
    for path in [*maps.rglob("*.tiff")] if suffix == ".npy" else []:
        np.save(path.with_suffix(".npy"), tifffile.imread(path))
        path.unlink()
    if suffix == "set":
        file = maps / "part/test/crack/000.tiff"
        maps = as_set(maps / "asmaps.pt", [file], ["part/test/crack/000.png"])
    for skip_bad in (True, False):
        with pytest.raises(ValueError, match="Give them the other way round"):
            scores_of(data, maps, skip_bad=skip_bad)


def test_advice_on_folders_of_normal_images_is_right(sources: Sources, aupimo: Any, printed: Any) -> None:
    """The option that the error names gives the scores."""
    maps, data = sources
    code, _, err = aupimo(f"{COMMAND} --json --skip-bad", maps, "--data", data)
    assert (code, "`--normal-folder fine`" in err) == (1, True)
    (category,) = json.loads(printed(f"{COMMAND} --json --normal-folder fine", maps, "--data", data))["categories"]
    assert (category["num_normal"], category["num_anomalous"]) == (3, 2)
    assert category["aupimo"] == mean_of(maps, data)


@pytest.mark.parametrize("has_maps", [True, False])
def test_a_table_gives_the_scores_of_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Any, sources: Sources, has_maps: bool
) -> None:
    """A table names images, masks and maps, or goes with a folder of maps, and scores as the folders do.

    It may be a file, in Python and in the shell, which writes one with `--write-table`, or a DataFrame.
    """
    maps, data = sources
    expected, path = scores_of(maps, data).categories[0].result, tmp_path / "table.csv"
    layout = ("--data", data, "--normal-folder", "fine", "--write-table", path)
    assert printed("evaluate", *layout) == f"Table of 5 images: {path}\n"
    if not has_maps:
        with_maps(pd.read_csv(path, keep_default_na=False)).to_csv(path, index=False)
    monkeypatch.chdir(tmp_path)  # relative paths of a table in memory begin where the program runs
    for table, said in ((path, str(path)), (pd.read_csv(path, keep_default_na=False), "DataFrame")):
        evaluation = scores_of(maps if has_maps else None, None, table=table)
        (scores,) = evaluation.categories
        assert scores.result.paths == expected.paths
        assert scores.result.aupimos.nan_to_num(-1).equal(expected.aupimos.nan_to_num(-1))
        assert evaluation.to_dict()["settings"]["table"] == said
    if has_maps:
        by_layout, by_table = (
            json.loads(printed(f"{COMMAND} --json", maps, *given)) for given in (layout, ("--table", path))
        )
        assert by_layout["mean"] == by_table["mean"]


def test_what_the_values_of_masks_mean_is_passed_on(sources: Sources, printed: Any) -> None:
    """`--mask-threshold` and `--ignore-index` settle what a mask of several values is."""
    maps, data = sources
    for path in (data / "part/ground_truth/crack").iterdir():
        mask = np.array(Image.open(path))
        mask[4, 5:12], mask[15:] = 40, 100
        Image.fromarray(mask).save(path)
    with pytest.raises(BadFilesError):
        scores_of(maps, data)
    command = f"{COMMAND} --json --normal-folder fine --mask-threshold 127 --ignore-index 100"
    settings = json.loads(printed(command, maps, "--data", data))["settings"]
    assert (settings["mask_threshold"], settings["ignore_index"]) == (127, 100)
    rows = scores_of(maps, data, mask_threshold=127, ignore_index=100).categories[0].images
    assert [(row["mask_pixels"], row["num_pixels"]) for row in rows[:2]] == [(28, 15 * 24), (35, 15 * 24)]


def test_map_suffix_and_links_are_passed_on(tmp_path: Path, sources: Sources) -> None:
    """`map_suffix` chooses among files of maps, and `follow_links` lets links lead out."""
    maps, data = sources
    for path in list(maps.rglob("*.tiff")):
        np.save(path.with_suffix(".npy"), np.zeros(SIZE))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "part").symlink_to(data / "part")
    with pytest.raises(ValueError, match="map_suffix"):
        scores_of(maps, data)
    with pytest.raises(ValueError, match="link"):
        scores_of(maps, tmp_path / "links", map_suffix=".tiff")
    expected = mean_of(maps, data, map_suffix=".tiff")
    assert mean_of(maps, tmp_path / "links", map_suffix=".tiff", follow_links=True) == expected
