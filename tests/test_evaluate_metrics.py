"""The metrics beside AUPIMO in `aupimo evaluate` are those of their definitions, of pixels and of images."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import tifffile
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics.cli import main
from aupimo_torchmetrics.evaluate import BadFilesError, Evaluation, evaluate

BOUNDS = (1e-2, 1e-1)
ALL = ("auroc", "aupr", "f1_max", "aupro", "image_auroc", "image_aupr", "image_f1_max")
ROUNDING = 1e-12
"""The same numbers are added up in another order."""

Arrays = list[NDArray[Any]]


def make_data(folder: Path, num_normal: int = 4, num_anomalous: int = 3) -> tuple[Arrays, Arrays]:
    """Write a table of images with maps and masks, among them ties and large offsets; return maps and masks."""
    random = np.random.default_rng(0)
    maps, masks, rows = [], [], []
    for number in range(num_normal + num_anomalous):
        mask = np.zeros((14, 17), dtype=bool)
        if number >= num_normal:
            mask[2 : 4 + number, 3:9] = mask[-1, -2:] = True
        scores = (100 + random.normal(size=mask.shape).round(1) + mask).astype(np.float32)
        tifffile.imwrite(folder / f"{number}.tiff", scores)
        if mask.any():
            Image.fromarray(mask).save(folder / f"{number}.png")
        rows.append([f"{number}.jpg", f"{number}.png" if mask.any() else "", f"{number}.tiff", str(random.normal())])
        maps.append(scores)
        masks.append(mask)
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "mask", "map", "own"], *rows])
    return maps, masks


def expected(maps: Arrays, masks: Arrays, image_scores: list[float] | None = None) -> dict[str, float]:
    """Every metric by the definitions."""
    pixels = np.concatenate([each.ravel() for each in maps]), np.concatenate([each.ravel() for each in masks])
    maxima = [float(each.max()) for each in maps] if image_scores is None else image_scores
    images = np.array(maxima), np.array([each.any() for each in masks])
    regions = reference.aupro(maps, masks, 0.3)
    found = {"aupro": sum(regions) / len(regions)}
    for prefix, both in (("", pixels), ("image_", images)):
        found[f"{prefix}auroc"] = reference.auroc(*both)
        found[f"{prefix}aupr"] = reference.average_precision(*both)
        found[f"{prefix}f1_max"] = reference.f1_max(*both)[0]
    return found


def values_of(folder: Path, **settings: Any) -> dict[str, float]:
    """Metrics beside AUPIMO of the only category of a table."""
    (scores,) = evaluated(folder, **settings).categories
    return {name: value for name, value in scores.values().items() if name != "aupimo"}


def evaluated(folder: Path, **settings: Any) -> Evaluation:
    """Evaluate the table."""
    return evaluate(table=folder / "table.csv", fpr_bounds=BOUNDS, **settings)


def test_scores_of_images_come_from_the_table(tmp_path: Path) -> None:
    """A column `score` takes the place of the highest score of each map, and each row needs a number in it."""
    maps, masks = make_data(tmp_path)
    head, *rows = (tmp_path / "table.csv").read_text().replace("own", "score").splitlines()
    wanted = expected(maps, masks, [float(row.split(",")[-1]) for row in rows])
    (tmp_path / "table.csv").write_text("\n".join([head, *rows]))
    names = ("image_auroc", "image_aupr", "image_f1_max")
    found = values_of(tmp_path, metrics=names)
    assert found == pytest.approx({name: wanted[name] for name in names}, abs=ROUNDING)
    for cell, reason in (("", "no score"), ("high", "'high' is no number"), ("nan", "'nan' is no number")):
        spoilt = ",".join([*rows[0].split(",")[:-1], cell])
        (tmp_path / "table.csv").write_text("\n".join([head, spoilt, *rows[1:]]))
        with pytest.raises(BadFilesError, match=f"table.csv, line 2: 0.jpg: .*{reason}"):
            evaluated(tmp_path, metrics=names)


@pytest.mark.parametrize(("num_normal", "num_anomalous"), [(0, 3), (4, 0)])
def test_metrics_of_one_class_are_undefined(tmp_path: Path, num_normal: int, num_anomalous: int) -> None:
    """What is undefined is NaN, with one text that names the metrics and the class that is missing."""
    make_data(tmp_path, num_normal, num_anomalous)
    (scores,) = evaluated(tmp_path, metrics=ALL).categories
    are_undefined = {name: math.isnan(scores.values()[name]) for name in ALL}
    assert are_undefined == {name: name.startswith("image_") or num_anomalous == 0 for name in ALL}
    none_of = f"none of the {num_normal + num_anomalous} images is {'anomalous' if num_normal else 'normal'}"
    (text,) = [text for text in scores.warnings if "image_auroc" in text]
    assert text.startswith(f"image_auroc, image_aupr, image_f1_max: undefined (NaN), as {none_of}")


@pytest.mark.parametrize("num_bins", [None, 2**10])
def test_one_metric_says_what_all_together_say(tmp_path: Path, num_bins: int | None) -> None:
    """A metric that is asked for alone has the same value as beside the others, exactly and in bins."""
    make_data(tmp_path)
    alone = {name: values_of(tmp_path, metrics=[name], num_bins=num_bins)[name] for name in ALL}
    assert alone == values_of(tmp_path, metrics=ALL, num_bins=num_bins)


def test_metrics_and_what_else_is_known_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All metrics equal slow loops, and come in one order, whatever order they are asked for in.

    AUPRO is up to the limit; with bins there are certain bounds; and the thresholds of the F1 scores are there.
    """
    maps, masks = make_data(tmp_path)
    wanted, regions = expected(maps, masks), reference.aupro(maps, masks, 0.05)
    wanted["aupro"] = sum(regions) / len(regions)
    arguments = ["evaluate", "--table", str(tmp_path / "table.csv"), "--fpr-bounds", "1e-2", "1e-1"]
    arguments += ["--metrics", *ALL[::-1], "--fpr-limit", "0.05"]
    assert main([*arguments, "--json"]) == 0
    (exact,) = json.loads(capsys.readouterr().out)["categories"]
    assert [name for name in exact if name in ALL] == [*ALL]
    assert {name: exact[name] for name in ALL} == pytest.approx(wanted, abs=ROUNDING)
    assert exact["bounds"] == {}
    pixels = np.concatenate([each.ravel() for each in maps]), np.concatenate([each.ravel() for each in masks])
    images = np.array([each.max() for each in maps]), np.array([each.any() for each in masks])
    thresholds = {"f1_max": reference.f1_max(*pixels)[1], "image_f1_max": reference.f1_max(*images)[1]}
    assert exact["thresholds"] == pytest.approx(thresholds, abs=1e-6)

    assert main([*arguments, "--num-bins", "262144", "--out", str(tmp_path / "out")]) == 0
    (binned,) = json.loads((tmp_path / "out/summary.json").read_text())["categories"]
    printed = capsys.readouterr().out
    assert "AUPRO up to an FPR of 0.05\n" in printed
    assert "Set `--num-bins None` for the exact value" in printed
    assert {name: binned[name] for name in ALL[4:]} == pytest.approx({n: wanted[n] for n in ALL[4:]}, abs=ROUNDING)
    assert {*binned["bounds"]} == {*ALL[:4]}
    for name, (low, high) in binned["bounds"].items():
        assert low - ROUNDING <= wanted[name] <= high + ROUNDING
        assert low <= binned[name] <= high
        assert f"{name.upper().replace('_', ' ')} {low:.4f} to {high:.4f}" in printed
