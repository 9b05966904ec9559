"""`aupimo evaluate` and `evaluate` pass on what says where images, masks and maps are, and what the masks mean."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.evaluate import BadFilesError, Evaluation, evaluate, find_test_images
from aupimo_torchmetrics.evaluate.data.table import write_table

BOUNDS = (1e-2, 1e-1)
CLI_BOUNDS = ("--fpr-bounds", "1e-2", "1e-1")
SIZE = (20, 24)


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of maps and of data: 3 normal images in `fine`, 2 with a defect in `crack`."""
    random = np.random.default_rng(0)
    for number in range(5):
        name = f"part/test/{'fine' if number < 3 else 'crack'}/{number:03}"
        mask = np.zeros(SIZE, dtype=np.uint8)
        if number >= 3:
            mask[3:9, 4:10] = 255
            path = tmp_path / f"data/part/ground_truth/crack/{number:03}_mask.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
        for folder in ("data", "maps"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / f"data/{name}.png")
        tifffile.imwrite(tmp_path / f"maps/{name}.tiff", (random.normal(size=SIZE) + mask / 255).astype(np.float32))
    return tmp_path / "maps", tmp_path / "data"


def table_rows(maps: Path | None) -> list[dict[str, str]]:
    """Rows of a table of the images, with maps if their folder is given."""
    rows = []
    for number in range(5):
        name = f"part/test/{'fine' if number < 3 else 'crack'}/{number:03}"
        mask = f"data/part/ground_truth/crack/{number:03}_mask.png" if number >= 3 else ""
        row = {"image": f"data/{name}.png", "mask": mask, "category": "part", "defect": "crack" if mask else "good"}
        rows.append(row if maps is None else {**row, "map": f"{maps.name}/{name}.tiff"})
    return rows


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write a table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def scores_of(maps: Path, data: Path | None, **settings: object) -> Evaluation:
    """Evaluate maps of the images."""
    normal_folder = {"normal_folder": "fine"} if data is not None else {}
    return evaluate(maps, data, fpr_bounds=BOUNDS, **normal_folder, **settings)


MATCHED = {
    "equal": ("part", "", "", None),
    "a run": ("run/part", "", "", "maps/run/part/test/crack/003.tiff -> part/test/crack/003.png"),
    "equal below the category": ("part", "part", "part", None),
    "deeper": ("part", "part/test", "part", "test/crack/003.tiff -> part/test/crack/003.png"),
    "below a run": ("part/run", "part/run", "part", None),
}
"""Where the maps lie, which folder of maps and of data is given, and which example the summary has."""


@pytest.mark.parametrize("case", MATCHED)
def test_the_summary_says_which_map_was_taken_for_which_image(sources: tuple[Path, Path], case: str) -> None:
    """One example is given in text and JSON, unless the paths are equal but for the suffix; and no warning."""
    maps, data = sources
    place, of_maps, of_data, example = MATCHED[case]
    (maps / "part").rename(maps / "moved")
    (maps / place).parent.mkdir(parents=True, exist_ok=True)
    (maps / "moved").rename(maps / place)
    evaluation = scores_of(maps / of_maps, data / of_data)
    expected = [] if example is None else [f"maps were matched by their paths, as {example}"]
    assert evaluation.notes == evaluation.to_dict()["notes"] == expected
    assert all(line in evaluation.summary().splitlines() for line in expected)
    assert not any(" lie in " in text for text in evaluation.categories[0].warnings)


@pytest.mark.parametrize("place", ["{}", "runs/{}"])
@pytest.mark.parametrize("kind", ["in the maps", "given", "its test", "in a set", "beside a set"])
def test_maps_of_another_category(sources: tuple[Path, Path], kind: str, place: str) -> None:
    """They are refused, or where their own paths do not say the category, there is a warning that names both."""
    maps, data = sources
    folder = maps / place.format("gear")
    (data / "gear").mkdir()
    folder.parent.mkdir(exist_ok=True)
    (maps / "part").rename(folder)
    given = {"in the maps": folder.parent, "given": folder, "its test": folder / "test"}.get(kind, folder / "asmaps.pt")
    if "set" in kind:
        names = sorted(path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.tiff"))
        stack = torch.stack([torch.from_numpy(tifffile.imread(folder.parent / name)) for name in names])
        paths = names if kind == "in a set" else [name.removeprefix("gear/") for name in names]
        torch.save({"asmaps": stack, "paths": paths}, given)
    if kind.startswith("in "):
        with pytest.raises(BadFilesError, match=r"as gear/test/crack/003\.tiff and part/test/crack/003\.png: give"):
            scores_of(given, data / "part")
        return
    evaluation = scores_of(given, data / "part")
    (warning,) = (text for text in evaluation.categories[0].warnings if " lie in " in text)
    assert "the maps lie in gear, the images in part, as " in warning
    assert f"warning: part: {warning}" in evaluation.summary()


def test_any_folder_may_hold_maps(sources: tuple[Path, Path]) -> None:
    """The maps of one category may lie in it without a folder of their own; the example says which is of which."""
    maps, data = sources
    (maps / "part/test").rename(maps / "test")
    evaluation = scores_of(maps, data / "part")
    assert not any(" lie in " in text for text in evaluation.categories[0].warnings)
    assert "test/crack/003.tiff -> part/test/crack/003.png" in evaluation.notes[0]


def test_what_is_advised_where_no_path_fits_is_right(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    """A folder of maps, a table that names each map, and one that names the paths of a set give the same score."""
    maps, data = sources
    expected = scores_of(maps, data).categories[0].result.mean
    (maps / "part").rename(maps / "engine")
    with pytest.raises(BadFilesError, match="give as `maps` the folder below which the paths agree, or a `table`"):
        scores_of(maps, data)
    assert scores_of(maps / "engine", data / "part").categories[0].result.mean == expected
    write_table(find_test_images(data, normal_folder="fine"), tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    ends = table["image"].str.removeprefix("data/part/").str.removesuffix(".png")
    table.assign(map="maps/engine/" + ends + ".tiff").to_csv(tmp_path / "table.csv", index=False)
    assert evaluate(table=tmp_path / "table.csv", fpr_bounds=BOUNDS).categories[0].result.mean == expected
    stack = torch.stack([torch.from_numpy(tifffile.imread(maps / f"engine/{end}.tiff")) for end in ends])
    names = [f"D:\\engine\\{end}.png" for end in ends]
    torch.save({"asmaps": stack, "paths": names}, tmp_path / "asmaps.pt")
    table.assign(name=names).to_csv(tmp_path / "table.csv", index=False)
    assert scores_of(tmp_path / "asmaps.pt", None, table=tmp_path / "table.csv").categories[0].result.mean == expected


def test_seeds_in_one_folder_of_maps(sources: tuple[Path, Path]) -> None:
    """Who gives the folder of all seeds is told to give that of one, and that is right."""
    maps, data = sources
    expected = scores_of(maps, data).categories[0].result.mean
    (maps / "part").rename(maps / "moved")
    for seed in ("seed0", "seed1"):
        shutil.copytree(maps / "moved", maps / seed / "part")
    shutil.rmtree(maps / "moved")
    with pytest.raises(BadFilesError, match=r"as seed0/part/.* and seed1/part/.*; the folder of one of them as `maps`"):
        scores_of(maps, data)
    assert scores_of(maps / "seed1", data).categories[0].result.mean == expected


@pytest.mark.parametrize("suffix", [".tiff", ".npy", "set"])
def test_maps_and_data_the_wrong_way_round(sources: tuple[Path, Path], suffix: str) -> None:
    """Who swaps them is told so, whether maps look like images or not."""
    maps, data = sources
    for path in [*maps.rglob("*.tiff")] if suffix == ".npy" else []:
        np.save(path.with_suffix(".npy"), tifffile.imread(path))
        path.unlink()
    if suffix == "set":
        torch.save({"asmaps": torch.zeros(1, *SIZE), "paths": ["part/test/crack/003.png"]}, maps / "asmaps.pt")
        maps /= "asmaps.pt"
    for skip_bad in (True, False):
        with pytest.raises(ValueError, match="Give them the other way round"):
            scores_of(data, maps, skip_bad=skip_bad)


def test_advice_on_folders_of_normal_images_is_right(
    sources: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The option that the error names gives the scores."""
    maps, data = sources
    arguments = ["evaluate", str(maps), "--data", str(data), *CLI_BOUNDS]
    assert main([*arguments, "--skip-bad"]) == 1
    assert "`--normal-folder fine`" in capsys.readouterr().err
    assert main([*arguments, "--normal-folder", "fine", "--json"]) == 0
    (category,) = json.loads(capsys.readouterr().out)["categories"]
    assert (category["num_normal"], category["num_anomalous"]) == (3, 2)
    by_text = scores_of(maps, data)
    assert by_text.categories[0].result.mean == category["aupimo"]


@pytest.mark.parametrize("has_maps", [True, False])
@pytest.mark.parametrize("kind", ["file", "data frame"])
def test_a_table_gives_the_scores_of_the_folders(
    tmp_path: Path, sources: tuple[Path, Path], has_maps: bool, kind: str
) -> None:
    """A table names images, masks and maps, or goes with a folder of maps, and scores as the folders do."""
    maps, data = sources
    expected = evaluate(maps, data, fpr_bounds=BOUNDS, normal_folder=["fine"]).categories[0].result
    rows = table_rows(None if has_maps else maps)
    table = write_rows(tmp_path / "table.csv", rows) if kind == "file" else pd.DataFrame(rows)
    if kind == "data frame":  # relative paths of a table in memory begin where the program runs
        for column in {"image", "mask", "map"} & set(table):
            table[column] = [str(tmp_path / path) if path else "" for path in table[column]]
    evaluation = evaluate(maps if has_maps else None, table=table, fpr_bounds=BOUNDS)
    (scores,) = evaluation.categories
    assert sorted(scores.result.aupimos.nan_to_num(-1).tolist()) == sorted(expected.aupimos.nan_to_num(-1).tolist())
    assert evaluation.to_dict()["settings"]["table"] == (str(table) if kind == "file" else "DataFrame")


def test_the_table_of_a_data_set_can_be_written_and_used(
    tmp_path: Path, sources: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--write-table` writes what `--table` reads, with and without an evaluation, and needs a data set."""
    maps, data = sources
    table = tmp_path / "written.csv"
    layout = ["--data", str(data), "--normal-folder", "fine"]
    assert main(["evaluate", *layout, "--write-table", str(table)]) == 0
    assert capsys.readouterr().out == f"Table of 5 images: {table}\n"
    assert main(["evaluate", str(maps), *layout, *CLI_BOUNDS, "--write-table", str(table), "--json"]) == 0
    by_folders = json.loads(capsys.readouterr().out)["mean"]
    assert main(["evaluate", str(maps), "--table", str(table), *CLI_BOUNDS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean"] == by_folders
    assert main(["evaluate", "--write-table", str(table)]) == 2
    assert "Expected `--data` with `--write-table`" in capsys.readouterr().err


def test_what_the_values_of_masks_mean_is_passed_on(
    sources: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--mask-threshold` and `--ignore-index` settle what a mask of several values is."""
    maps, data = sources
    for path in (data / "part/ground_truth/crack").iterdir():
        mask = np.asarray(Image.open(path)).copy()
        mask[3, 4:10], mask[15:, :] = 40, 100
        Image.fromarray(mask).save(path)
    with pytest.raises(BadFilesError):
        scores_of(maps, data)
    arguments = ["evaluate", str(maps), "--data", str(data), *CLI_BOUNDS, "--normal-folder", "fine", "--json"]
    assert main([*arguments, "--mask-threshold", "127"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--mask-threshold", "127", "--ignore-index", "100"]) == 0
    ignoring = json.loads(capsys.readouterr().out)
    assert whole["settings"]["mask_threshold"] == ignoring["settings"]["mask_threshold"] == 127
    assert ignoring["settings"]["ignore_index"] == 100
    rows = (
        evaluate(maps, data, fpr_bounds=BOUNDS, normal_folder="fine", mask_threshold=127, ignore_index=100)
        .categories[0]
        .images
    )
    assert [(row["mask_pixels"], row["num_pixels"]) for row in rows[:2]] == [(30, 20 * 24 - 5 * 24)] * 2


def test_map_suffix_and_links_are_passed_on(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    """`map_suffix` chooses among files of maps, and `follow_links` lets links lead out."""
    maps, data = sources
    for path in list(maps.rglob("*.tiff")):
        np.save(path.with_suffix(".npy"), np.zeros(SIZE))
    (tmp_path / "linked").symlink_to(data)
    settings = {"fpr_bounds": BOUNDS, "normal_folder": "fine"}
    with pytest.raises(ValueError, match="map_suffix"):
        evaluate(maps, data, **settings)
    expected = evaluate(maps, data, map_suffix=".tiff", **settings).categories[0].result
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "part").symlink_to(data / "part")
    linked = evaluate(maps, tmp_path / "links", map_suffix=".tiff", follow_links=True, **settings).categories[0].result
    assert linked.mean == expected.mean
    with pytest.raises(ValueError, match="link"):
        evaluate(maps, tmp_path / "links", map_suffix=".tiff", **settings)
