"""`aupimo evaluate` and `evaluate` pass on what says where images, masks and maps are, and what the masks mean."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from data_sets import SIZE, write_set
from PIL import Image

from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.evaluate import BadFilesError, Evaluation, evaluate, find_test_images
from aupimo_torchmetrics.evaluate.data.table import write_table

BOUNDS = (1e-2, 1e-1)
Sources = tuple[Path, Path]
CLI_BOUNDS = ("--fpr-bounds", "1e-2", "1e-1")


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of maps and of data: 3 normal images in `fine`, 2 with a defect in `crack`."""
    maps, data = write_set(tmp_path, {"part": {"good": 3, "crack": 2}})
    for folder in (maps, data):
        (folder / "part/test/good").rename(folder / "part/test/fine")
    return maps, data


def write_csv(path: Path, data: Path) -> pd.DataFrame:
    """Write the table of the images, and return it with a column of maps."""
    write_table(find_test_images(data, normal_folder="fine"), path)
    table = pd.read_csv(path, keep_default_na=False)
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


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Run `aupimo evaluate`, which must go well, and return its JSON."""
    assert main(["evaluate", *map(str, arguments), *CLI_BOUNDS, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


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


@pytest.mark.parametrize("place", ["{}", "runs/{}"])
@pytest.mark.parametrize("kind", ["in the maps", "given", "its test", "in a set", "beside a set"])
def test_maps_of_another_category(sources: Sources, kind: str, place: str) -> None:
    """They are refused, or where their own paths do not say the category, there is a warning that names both."""
    maps, data = sources
    folder = maps / place.format("gear")
    (data / "gear").mkdir()
    folder.parent.mkdir(exist_ok=True)
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
    """A folder of maps, a table that names each map, and one that names the paths of a set give the same score."""
    maps, data = sources
    expected, path = mean_of(maps, data), tmp_path / "table.csv"
    (maps / "part").rename(maps / "engine")
    with pytest.raises(BadFilesError, match="give as `maps` the folder below which the paths agree, or a `table`"):
        scores_of(maps, data)
    assert mean_of(maps / "engine", data / "part") == expected
    table = write_csv(path, data)
    files = table["map"].str.replace("part", "engine")
    table.assign(map=files).to_csv(path, index=False)
    assert mean_of(None, None, table=path) == expected
    names = ["D:\\" + file.replace(".tiff", ".png").replace("/", "\\") for file in files]
    asmaps = as_set(tmp_path / "asmaps.pt", [tmp_path / file for file in files], names)
    table.assign(name=names).to_csv(path, index=False)
    assert mean_of(asmaps, None, table=path) == expected


def test_seeds_in_one_folder_of_maps(sources: Sources) -> None:
    """Who gives the folder of all seeds is told to give that of one, and that is right."""
    maps, data = sources
    expected = mean_of(maps, data)
    shutil.copytree(maps / "part", maps / "seed0/part")
    (maps / "seed1").mkdir()
    (maps / "part").rename(maps / "seed1/part")
    with pytest.raises(BadFilesError, match=r"as seed0/part/.* and seed1/part/.*; the folder of one of them as `maps`"):
        scores_of(maps, data)
    assert mean_of(maps / "seed1", data) == expected


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


def test_advice_on_folders_of_normal_images_is_right(sources: Sources, capsys: pytest.CaptureFixture[str]) -> None:
    """The option that the error names gives the scores."""
    maps, data = sources
    assert main(["evaluate", str(maps), "--data", str(data), *CLI_BOUNDS, "--skip-bad"]) == 1
    assert "`--normal-folder fine`" in capsys.readouterr().err
    (category,) = run(capsys, maps, "--data", data, "--normal-folder", "fine")["categories"]
    assert (category["num_normal"], category["num_anomalous"]) == (3, 2)
    assert category["aupimo"] == mean_of(maps, data)


@pytest.mark.parametrize("has_maps", [True, False])
@pytest.mark.parametrize("kind", ["file", "data frame"])
def test_a_table_gives_the_scores_of_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: Sources, has_maps: bool, kind: str
) -> None:
    """A table names images, masks and maps, or goes with a folder of maps, and scores as the folders do."""
    maps, data = sources
    expected = evaluate(maps, data, fpr_bounds=BOUNDS, normal_folder=["fine"]).categories[0].result
    frame, path = write_csv(tmp_path / "table.csv", data), tmp_path / "table.csv"
    frame = frame.drop(columns="map") if has_maps else frame
    frame.to_csv(path, index=False)
    if kind == "data frame":  # relative paths of a table in memory begin where the program runs
        monkeypatch.chdir(tmp_path)
    evaluation = scores_of(maps if has_maps else None, None, table=path if kind == "file" else frame)
    (scores,) = evaluation.categories
    assert scores.result.paths == expected.paths
    assert scores.result.aupimos.nan_to_num(-1).equal(expected.aupimos.nan_to_num(-1))
    assert evaluation.to_dict()["settings"]["table"] == (str(path) if kind == "file" else "DataFrame")


def test_the_table_of_a_data_set_can_be_written_and_used(
    tmp_path: Path, sources: Sources, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--write-table` writes what `--table` reads, with and without an evaluation."""
    maps, data = sources
    table = tmp_path / "written.csv"
    layout = ["--data", str(data), "--normal-folder", "fine", "--write-table", str(table)]
    assert main(["evaluate", *layout]) == 0
    assert capsys.readouterr().out == f"Table of 5 images: {table}\n"
    table.unlink()
    assert run(capsys, maps, *layout)["mean"] == run(capsys, maps, "--table", table)["mean"]


def test_what_the_values_of_masks_mean_is_passed_on(sources: Sources, capsys: pytest.CaptureFixture[str]) -> None:
    """`--mask-threshold` and `--ignore-index` settle what a mask of several values is."""
    maps, data = sources
    for path in (data / "part/ground_truth/crack").iterdir():
        mask = np.array(Image.open(path))
        mask[4, 5:12], mask[15:] = 40, 100
        Image.fromarray(mask).save(path)
    with pytest.raises(BadFilesError):
        scores_of(maps, data)
    options = ("--normal-folder", "fine", "--mask-threshold", "127")
    whole = run(capsys, maps, "--data", data, *options)
    ignoring = run(capsys, maps, "--data", data, *options, "--ignore-index", "100")
    assert whole["settings"]["mask_threshold"] == ignoring["settings"]["mask_threshold"] == 127
    assert ignoring["settings"]["ignore_index"] == 100
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
