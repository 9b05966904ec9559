"""The metrics beside AUPIMO in `aupimo evaluate` are those of their definitions, of pixels and of images."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from data_sets import BOUNDS, COMMAND, make_data, write_image, write_map, write_rows
from helpers import updated
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics import AUPIMO
from aupimo_torchmetrics.evaluate import BadFilesError, Evaluation, evaluate

ALL = ("auroc", "aupr", "f1_max", "aupro", "image_auroc", "image_aupr", "image_f1_max")
ROUNDING = 1e-12
"""The same numbers are added up in another order."""

Arrays = list[NDArray[Any]]


def write_data(folder: Path, num_normal: int = 4, num_anomalous: int = 3) -> tuple[Arrays, Arrays]:
    """Write a table of images with maps and masks, among them ties and large offsets; return maps and masks."""
    maps, masks = make_data(num_normal, num_anomalous, 1)
    maps = [100 + scores for scores in maps]
    write_rows(folder, maps, masks, own=np.random.default_rng(1).normal(size=len(maps)))
    return maps, masks


def evaluated(folder: Path, **settings: Any) -> Evaluation:
    """Evaluate the table."""
    return evaluate(table=folder / "table.csv", fpr_bounds=BOUNDS, **settings)


def test_scores_of_images_come_from_the_table(tmp_path: Path) -> None:
    """A column `score` takes the place of the highest score of each map, and each row needs a number in it."""
    maps, masks = write_data(tmp_path)
    head, *rows = (tmp_path / "table.csv").read_text().replace("own", "score").splitlines()
    own_scores = [float(row.split(",")[-1]) for row in rows]
    wanted = reference.all_metrics(maps, masks, image_scores=own_scores)
    (tmp_path / "table.csv").write_text("\n".join([head, *rows]))
    names = ("image_auroc", "image_aupr", "image_f1_max")
    (scores,) = evaluated(tmp_path, metrics=names).categories
    assert [scores.values()[name] for name in names] == pytest.approx([wanted[name] for name in names], abs=ROUNDING)
    for cell, reason in (("", "no score"), ("high", "'high' is no number"), ("nan", "'nan' is no number")):
        spoilt = ",".join([*rows[0].split(",")[:-1], cell])
        (tmp_path / "table.csv").write_text("\n".join([head, spoilt, *rows[1:]]))
        with pytest.raises(BadFilesError, match=f"table.csv, line 2: 0.jpg: .*{reason}"):
            evaluated(tmp_path, metrics=names)


@pytest.mark.parametrize(("num_normal", "num_anomalous"), [(0, 3), (4, 0)])
def test_metrics_of_one_class_are_undefined(tmp_path: Path, num_normal: int, num_anomalous: int) -> None:
    """What is undefined is NaN, with one text that names the metrics and the class that is missing."""
    write_data(tmp_path, num_normal, num_anomalous)
    (scores,) = evaluated(tmp_path, metrics=ALL).categories
    are_undefined = {name: math.isnan(scores.values()[name]) for name in ALL}
    assert are_undefined == {name: name.startswith("image_") or num_anomalous == 0 for name in ALL}
    none_of = f"none of the {num_normal + num_anomalous} images is {'anomalous' if num_normal else 'normal'}"
    (text,) = [text for text in scores.warnings if "image_auroc" in text]
    assert text.startswith(f"image_auroc, image_aupr, image_f1_max: undefined (NaN), as {none_of}")


def test_a_map_without_a_mean_leaves_metrics_of_images_undefined(tmp_path: Path) -> None:
    """Both infinities have none: the metrics are NaN with a text, also on disk, and intervals are not known."""
    maps, masks = make_data(6, 6, 1)
    maps[0][0, :2] = math.inf, -math.inf
    write_rows(tmp_path, maps, masks)
    evaluation = evaluated(tmp_path, metrics=["image_auroc"], image_score="mean", intervals=True)
    (scores,) = evaluation.categories
    assert math.isnan(scores.values()["image_auroc"])
    assert any("the score of 1 of the 12 images is NaN" in text for text in scores.warnings)
    assert math.isnan(scores.intervals["image_auroc"].lower)
    evaluation.save(tmp_path / "out")
    assert json.loads((tmp_path / "out/summary.json").read_text())["categories"][0]["image_auroc"] is None


def resized(array: NDArray[Any], size: tuple[int, int], mode: str) -> NDArray[Any]:
    """Resize as papers do that compute in one size."""
    images = torch.from_numpy(array.astype(np.float32))[None, None]
    return np.asarray(torch.nn.functional.interpolate(images, size, mode=mode)[0, 0])


@pytest.mark.parametrize(("size", "image_score", "share"), [(9, "top_10%", 0.1), ((11, 13), "mean", 1), (20, "max", 0)])
def test_numbers_in_one_size_are_those_of_papers(tmp_path: Path, size: Any, image_score: str, share: float) -> None:
    """Maps are resized bilinearly and masks to the nearest pixel; an image is scored by its highest pixels."""
    maps, masks = write_data(tmp_path)
    pair = (size, size) if isinstance(size, int) else size
    small = [resized(each, pair, "bilinear") for each in maps]
    small_masks = [resized(each, pair, "nearest") > 0 for each in masks]
    number = max(1, int(small[0].size * share))
    scores = [float(np.sort(each, axis=None)[-number:].astype(np.float64).mean()) for each in small]
    evaluation = evaluated(tmp_path, metrics=ALL, size=size, image_score=image_score)
    (of_category,) = evaluation.categories
    wanted = reference.all_metrics(small, small_masks, image_scores=scores)
    assert {name: of_category.values()[name] for name in ALL} == pytest.approx(wanted, abs=ROUNDING)
    by_path = {image["path"]: image["image_score"] for image in of_category.images}
    assert [by_path[f"{index}.jpg"] for index in range(len(maps))] == pytest.approx(scores, abs=ROUNDING)
    batch = torch.from_numpy(np.stack(small)), torch.from_numpy(np.stack(small_masks))
    assert of_category.result.mean == updated(AUPIMO(fpr_bounds=BOUNDS), [batch]).result().mean
    assert f"maps (bilinear) and masks (nearest) at {pair[0]} x {pair[1]}" in evaluation.protocols["auroc"]


def test_masks_that_vanish_in_one_size_are_bad_files(tmp_path: Path) -> None:
    """An image with a defect is not taken for a normal one, because its mask is small; nor one without a pixel left."""
    write_data(tmp_path)
    one_pixel = np.arange(14 * 17).reshape(14, 17) == 20
    Image.fromarray(one_pixel).save(tmp_path / "5.png")
    with pytest.raises(BadFilesError, match=r"no pixel of its mask .*5\.png is left at 3 x 3"):
        evaluated(tmp_path, size=3)
    Image.fromarray(np.where(one_pixel, 0, 7).astype(np.uint8)).save(tmp_path / "5.png")
    with pytest.raises(BadFilesError, match="every pixel of the mask is ignored"):
        evaluated(tmp_path, size=3, ignore_index=7)


def test_wrong_sizes_and_scores_of_images(tmp_path: Path) -> None:
    """What is out of range is named before any map is read."""
    wrong: dict[str, dict[str, Any]] = {
        "one or two whole numbers .* but got 0": {"size": 0},
        r"one or two whole numbers .* but got \(8, 8, 8\)": {"size": (8, 8, 8)},
        "`size` or `resize=False`": {"size": 8, "resize": False},
        "'top_1%', but got 'median'": {"image_score": "median"},
        "'top_1%', but got 'top_101%'": {"image_score": "top_101%"},
    }
    for fault, settings in wrong.items():
        with pytest.raises(ValueError, match=fault):
            evaluated(tmp_path, **settings)


def test_protocols_say_how_each_metric_was_computed(tmp_path: Path, printed: Any) -> None:
    """There is a line for each metric, below the table, in `summary.json` and on the page; a table may give scores."""
    write_data(tmp_path)
    arguments = ["--out", tmp_path / "out", "--table", tmp_path / "table.csv", "--metrics", *ALL]
    told = printed(f"{COMMAND} --size 9 --image-score top_2.5% --report", *arguments).splitlines()
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    protocols = json.loads((tmp_path / "out/summary.json").read_text())["protocols"]
    assert [*protocols] == ["aupimo", *ALL]
    assert all(line in told and line in page for line in protocols.values())
    assert protocols["aupr"].startswith("average precision of all pixels, exact, maps (bilinear)")
    assert protocols["image_f1_max"] == (
        "image highest F1 of the mean of the highest 2.5% of the map, maps (bilinear) and masks (nearest) at 9 x 9"
    )
    text = (tmp_path / "table.csv").read_text()
    (tmp_path / "table.csv").write_text(text.replace("own", "score"))
    protocol = evaluated(tmp_path, metrics=["image_auroc"]).protocols["image_auroc"]
    assert protocol == "image AUROC of the score in the table"


def test_types_of_defects_have_every_metric(tmp_path: Path) -> None:
    """With `by="defect"` each type is scored with all normal images, as if the others were not there."""
    maps, masks = write_data(tmp_path, 4, 5)
    head, *rows = (tmp_path / "table.csv").read_text().splitlines()
    defects = ["good"] * 4 + ["a", "b", "a", "b", "b"]
    lines = [f"{head},defect", *(f"{row},{defect}" for row, defect in zip(rows, defects, strict=True))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    evaluation = evaluated(tmp_path, metrics=ALL, by="defect")
    rows_of_types = evaluation.categories[0].defects()
    for row, kind in zip(rows_of_types, ("a", "b"), strict=True):
        chosen = [index for index, defect in enumerate(defects) if defect in {"good", kind}]
        wanted = reference.all_metrics([maps[index] for index in chosen], [masks[index] for index in chosen])
        assert {name: row[name] for name in ALL} == pytest.approx(wanted, abs=ROUNDING)
        assert (row["defect"], row["num_normal"], row["num_anomalous"]) == (kind, 4, len(chosen) - 4)
        assert all(f"{row[name]:.4f}" in evaluation.summary() for name in ALL)
    assert evaluated(tmp_path, metrics=ALL).categories[0].values() == evaluation.categories[0].values()


CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 12, "relative_saturation": False},
    {"defect_name": "broken", "pixel_value": 254, "saturation_threshold": 0.4, "relative_saturation": True},
    {"defect_name": "huge", "pixel_value": 253, "saturation_threshold": 9999, "relative_saturation": False},
]


def write_loco(folder: Path) -> tuple[Path, Path, dict[str, tuple[Arrays, list[Arrays], list[list[int]]]]]:
    """Write a category of MVTec LOCO: masks of several files, one of them with two values; return it by kind, too."""
    random = np.random.default_rng(0)
    data, known = folder / "data/box", {}
    for kind, count in (("good", 3), ("logical_anomalies", 2), ("structural_anomalies", 3)):
        maps, regions, areas = [], [], []
        for number in range(count):
            layers = np.zeros((2, 15, 18), dtype=np.uint8)
            if kind != "good":
                layers[0, 2 : 5 + number, 3:9] = 255
                layers[1, 4:9, 7:13] = 254
                layers[1, 11:13, 2:15] = 253
                for index, layer in enumerate(layers):
                    write_image(data / f"ground_truth/{kind}/{number:03}/{index:03}.png", layer)
            of_image = [layers[0] == 255, layers[1] == 254, layers[1] == 253] if kind != "good" else []
            scores = (random.normal(size=(15, 18)).round(1) + layers.any(0)).astype(np.float32)
            write_image(data / f"test/{kind}/{number:03}.png", layers[0])
            write_map(folder / f"maps/test/{kind}/{number:03}.tiff", scores)
            maps.append(scores)
            regions.append(of_image)
            areas.append([12, int(0.4 * 30), 9999][: len(of_image)])
        known[kind] = maps, regions, areas
    (data / "defects_config.json").write_text(json.dumps(CONFIG))
    return folder / "maps", data, known


def test_au_spro_is_that_of_slow_loops(tmp_path: Path, printed: Any) -> None:
    """Of all images, and of each type of defect with all normal images; the mean of the types is said."""
    maps, data, known = write_loco(tmp_path)

    def loops(*kinds: str) -> float:
        parts = [[each for kind in kinds for each in known[kind][place]] for place in range(3)]
        return float(np.mean(reference.au_spro(*parts, 0.3)))

    options = "--layout loco --metrics au_spro aupro --by defect --out"
    told = printed(f"{COMMAND} {options}", tmp_path / "out", "--data", data, maps)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    (category,) = summary["categories"]
    assert category["au_spro"] == pytest.approx(loops(*known), abs=ROUNDING)
    of_types = [loops("good", kind) for kind in ("logical_anomalies", "structural_anomalies")]
    assert [row["au_spro"] for row in category["defects"]] == pytest.approx(of_types, abs=ROUNDING)
    assert f"AU SPRO of box, mean of its types of defects: {np.mean(of_types):.4f}" in told
    assert summary["protocols"]["au_spro"].startswith("AU-sPRO up to FPR 0.3, regions of the annotation, exact, at")
    assert [name for name in category if name in {"aupro", "au_spro"}] == ["aupro", "au_spro"]


NO_AREAS = [
    (None, "no defects_config.json in a folder above it"),
    ("{}", r"no value|does not know"),
    ("[1]", "is no list of pixel_value"),
    (json.dumps(CONFIG[:2]), "the value 253, which defects_config.json does not know"),
    (json.dumps([{**each, "saturation_threshold": 0} for each in CONFIG]), "not above 0"),
    (json.dumps([{**each, "relative_saturation": True} for each in CONFIG]), "a share above 1"),
]


@pytest.mark.parametrize(("content", "fault"), NO_AREAS)
def test_regions_of_which_nothing_says_how_much_is_enough(tmp_path: Path, content: str | None, fault: str) -> None:
    """A mask without its saturation area is a bad file, and `size` does not go with areas in pixels."""
    maps, data, _ = write_loco(tmp_path)
    (data / "defects_config.json").unlink()
    if content is not None:
        (data / "defects_config.json").write_text(content)
    with pytest.raises(BadFilesError, match=fault):
        evaluate(maps, data, "loco", BOUNDS, metrics=["au_spro"])
    (data / "defects_config.json").write_text(json.dumps(CONFIG))  # who mends the file is not told of the old one
    assert evaluate(maps, data, "loco", BOUNDS, metrics=["au_spro"]).categories[0].values()["au_spro"] > 0
    with pytest.raises(ValueError, match="`size` or the metric `au_spro`"):
        evaluate(maps, data, "loco", BOUNDS, metrics=["au_spro"], size=8)


@pytest.mark.parametrize(("num_bins", "intervals"), [(None, True), (2**10, False)])
def test_one_metric_says_what_all_together_say(tmp_path: Path, num_bins: int | None, intervals: bool) -> None:
    """A metric that is asked for alone has the same value and interval as beside the others, exactly and in bins."""
    write_data(tmp_path, 5, 5)
    settings = {"num_bins": num_bins, "intervals": intervals}
    together = evaluated(tmp_path, metrics=ALL, **settings).categories[0]
    for name in ALL:
        alone = evaluated(tmp_path, metrics=[name], **settings).categories[0]
        assert alone.values()[name] == together.values()[name]
        assert alone.intervals.get(name) == together.intervals.get(name)
    assert bool(together.intervals) == intervals


def test_metrics_and_what_else_is_known_are_written(tmp_path: Path, printed: Any) -> None:
    """All metrics equal slow loops, and come in one order, whatever order they are asked for in.

    AUPRO is up to the limit; with bins there are certain bounds; and the thresholds of the F1 scores are there.
    """
    maps, masks = write_data(tmp_path)
    wanted = reference.all_metrics(maps, masks, 0.05)
    arguments = ["--table", tmp_path / "table.csv", "--metrics", *ALL[::-1]]
    (exact,) = json.loads(printed(f"{COMMAND} --fpr-limit 0.05 --json", *arguments))["categories"]
    assert [name for name in exact if name in ALL] == [*ALL]
    assert {name: exact[name] for name in ALL} == pytest.approx(wanted, abs=ROUNDING)
    assert exact["bounds"] == {}
    pixels = np.concatenate([each.ravel() for each in maps]), np.concatenate([each.ravel() for each in masks])
    images = np.array([each.max() for each in maps]), np.array([each.any() for each in masks])
    thresholds = {"f1_max": reference.f1_max(*pixels)[1], "image_f1_max": reference.f1_max(*images)[1]}
    assert exact["thresholds"] == pytest.approx(thresholds, abs=1e-6)

    told = printed(f"{COMMAND} --fpr-limit 0.05 --num-bins 262144 --out", tmp_path / "out", *arguments)
    (binned,) = json.loads((tmp_path / "out/summary.json").read_text())["categories"]
    assert "AUPRO up to FPR 0.05, 8-connected regions, 262144 bins, at the size of the masks\n" in told
    assert "Set `--num-bins None` for the exact value" in told
    assert {name: binned[name] for name in ALL[4:]} == pytest.approx({n: wanted[n] for n in ALL[4:]}, abs=ROUNDING)
    assert {*binned["bounds"]} == {*ALL[:4]}
    for name, (low, high) in binned["bounds"].items():
        assert low - ROUNDING <= wanted[name] <= high + ROUNDING
        assert low <= binned[name] <= high
        assert f"{name.upper().replace('_', ' ')} {low:.4f} to {high:.4f}" in told
