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

from aupimo_torchmetrics.evaluate import BadFilesError, Evaluation, evaluate, find_test_images
from aupimo_torchmetrics.evaluate.data.table import write_table

BOUNDS = (1e-2, 1e-1)
Sources = tuple[Path, Path]
COMMAND = "evaluate --fpr-bounds 1e-2 1e-1 --json"


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
    code, _, err = aupimo(f"{COMMAND} --skip-bad", maps, "--data", data)
    assert (code, "`--normal-folder fine`" in err) == (1, True)
    (category,) = json.loads(printed(f"{COMMAND} --normal-folder fine", maps, "--data", data))["categories"]
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
        by_layout, by_table = (json.loads(printed(COMMAND, maps, *given)) for given in (layout, ("--table", path)))
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
    command = f"{COMMAND} --normal-folder fine --mask-threshold 127 --ignore-index 100"
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
