"""From maps to a decision: thresholds are chosen as promised, and what they do is counted over all pixels."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from data_sets import BOUNDS, COMMAND, TWO, Known, lowest_scores, normal_scores, write_known, write_map, write_set
from numpy.typing import NDArray
from PIL import Image

from aupimo_torchmetrics.evaluate import BadDataError, Thresholds, apply_thresholds, choose_thresholds, evaluate

Found = tuple[Path, Path, Path]
SIZES = {"bottle": (20, 24), "screw": (31, 17)}


def write_tied(folder: Path, dtype: str = "float32", *, ignored: int = 0) -> tuple[Path, Path, list[Known]]:
    """Write two categories of different sizes whose scores have many ties; `ignored` pixels of each mask are 128."""

    def draw(random: np.random.Generator, is_defect: NDArray[Any], _: int) -> NDArray[Any]:
        scores = random.integers(0, 30, is_defect.shape) + 8 * is_defect
        return (scores / (1 if "int" in dtype else 7)).astype(dtype)

    return write_known(folder, {name: {"good": 4, "crack": 4} for name in SIZES}, SIZES, draw, ignored)


def normal_maps(maps: Path, folder: Path) -> Path:
    """Copy the maps of normal images: one folder for each category."""
    for category in maps.iterdir():
        shutil.copytree(category / "test/good", folder / category.name)
    return folder


def ratio(part: float, whole: float) -> float:
    """Part of a whole; NaN of nothing."""
    return part / whole if whole else math.nan


def counted(known: list[Known], threshold: float) -> dict[str, float]:
    """Count pixels, but those of 128, and images with a pixel that reaches the threshold."""
    alarms: dict[bool, list[bool]] = {True: [], False: []}
    for each in known:
        alarms[bool((each.mask == 255).any())].append(
            bool((each.scores[each.mask != 128] >= np.float32(threshold)).any())
        )
    is_found = np.concatenate([each.scores.ravel() for each in known]) >= np.float32(threshold)
    mask = np.concatenate([each.mask.ravel() for each in known])
    found, false = (int(is_found[mask == value].sum()) for value in (255, 0))
    missed, rest = (int((~is_found[mask == value]).sum()) for value in (255, 0))
    num_alarms, num_normal_alarms = sum(alarms[True]), sum(alarms[False])
    return {
        "threshold": threshold,
        "seg_f1": ratio(2 * found, 2 * found + false + missed),
        "precision": ratio(found, found + false),
        "recall": ratio(found, found + missed),
        "fpr": ratio(false, false + rest),
        "class_f1": ratio(2 * num_alarms, num_alarms + num_normal_alarms + len(alarms[True])),
        "num_normal_alarms": num_normal_alarms,
        "num_anomalous_alarms": num_alarms,
    }


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8"])
def test_threshold_of_an_fpr_is_that_of_a_loop(tmp_path: Path, dtype: str) -> None:
    """It is the lowest score that at most this share of the normal pixels reach, in each category, whoever names it."""
    maps, data, known = write_tied(tmp_path, dtype)
    alone = choose_thresholds(normal_maps(maps, tmp_path / "alone"), fpr=0.2)
    of_data = choose_thresholds(maps, fpr=0.2, data=data)
    assert alone.values == of_data.values
    for category in SIZES:
        threshold, normal = alone.of(category), normal_scores(known, category)
        assert [threshold] == lowest_scores(normal, [0.2])
        (chosen,) = (each for each in alone.chosen if each.category == category)
        assert chosen.num_images == 4
        assert chosen.point.shared_fpr == pytest.approx((normal >= np.float32(threshold)).mean(), abs=1e-12)


def test_threshold_of_alarms_is_that_of_a_sorted_list(tmp_path: Path) -> None:
    """With n images it lies just above the ceil((1 - share)(n + 1))-th smallest of their highest scores."""
    random = np.random.default_rng(0)
    maps = random.normal(size=(30, 8, 9)).astype(np.float32)
    for number, scores in enumerate(maps):
        write_map(tmp_path / f"{number:03}.npy", scores)
    for share in (0.1, 0.25, 0.5):
        score = np.sort(maps.max((1, 2)))[math.ceil((1 - share) * 31 - 1e-9) - 1]
        thresholds = choose_thresholds(tmp_path, alarms=share)
        assert thresholds.of("any") == np.nextafter(score, np.float32(np.inf))
        assert f"probability {share} at most" in thresholds.rule
        assert "warning" not in thresholds.summary()  # of an FPR that nobody asked for
    with pytest.raises(BadDataError, match=r"99 normal images or more .* maps has 30"):
        choose_thresholds(tmp_path, alarms=0.01)


def test_few_pixels_are_warned_of_with_the_images_that_are_needed(tmp_path: Path) -> None:
    """A threshold that fewer than ten pixels reach is a matter of chance; the text says how many images would do."""
    for number in range(4):
        write_map(tmp_path / f"{number}.npy", np.random.default_rng(number).normal(size=(10, 10)))
    (chosen,) = choose_thresholds(tmp_path, fpr=1e-3).chosen
    assert any("400 normal pixels" in text and "100 normal images" in text for text in chosen.warnings)
    (chosen,) = choose_thresholds(tmp_path, fpr=0.05).chosen
    assert not any("matter of chance" in text for text in chosen.warnings)


def test_tied_scores_are_warned_of(tmp_path: Path) -> None:
    """A threshold above all scores, as too many share the highest one, is no choice."""
    write_map(tmp_path / "0.npy", np.minimum(np.random.default_rng(0).normal(size=(40, 40)), 0.5))
    (chosen,) = choose_thresholds(tmp_path, fpr=0.05).chosen
    assert any("the highest score alone has an FPR of 0.3" in text for text in chosen.warnings)
    for number in range(20):
        write_map(tmp_path / f"{number}.npy", np.minimum(np.random.default_rng(number).normal(size=(40, 40)), 0.5))
    (chosen,) = choose_thresholds(tmp_path, alarms=0.1).chosen
    assert any("20 of them share the highest score" in text for text in chosen.warnings)


NOT_KNOWN_AS_NORMAL = {
    "good/0.npy crack/0.npy": "crack and good",
    "0.npy bottle/0.npy": "folders that are categories",
    "validation/0.npy test/0.npy": "test and validation",
    "can/validation/0.npy can/test_public/0.npy rice/validation/0.npy": "can/test_public and can/validation",
}


@pytest.mark.parametrize("paths", NOT_KNOWN_AS_NORMAL)
def test_maps_of_which_nothing_says_that_they_are_normal_are_refused(tmp_path: Path, paths: str) -> None:
    """Maps alone lie in one folder, or in one folder for each category; folders of kinds and splits are none."""
    for path in paths.split():
        write_map(tmp_path / path, np.eye(4))
    with pytest.raises(BadDataError, match=NOT_KNOWN_AS_NORMAL[paths]):
        choose_thresholds(tmp_path, fpr=0.1)


def test_category_is_the_first_folder_that_differs(tmp_path: Path) -> None:
    """Folders that all maps share, before or behind it, name no category."""
    for category in ("can", "rice"):
        write_map(tmp_path / f"run/{category}/validation/good/000.npy", np.eye(9) + (category == "rice"))
    thresholds = choose_thresholds(tmp_path, fpr=0.2)
    assert thresholds.values == {"can": 1, "rice": 2}
    assert choose_thresholds(tmp_path / "run/can", fpr=0.2).values == {"": 1}


def test_submission_to_mvtec_ad_2(tmp_path: Path, printed: Any) -> None:
    """Thresholds are those of the split `validation`; maps and masks of the private splits are written as asked for."""
    splits = {"validation/good": "regular", "test_private": "regular", "test_private_mixed": "mixed"}
    for category in ("can", "rice"):
        for number, (split, kind) in enumerate(splits.items()):
            scores = np.random.default_rng(number).normal(size=(30, 20)) + (category == "rice")
            write_map(tmp_path / f"maps/{category}/{split}/000_{kind}.tiff", scores.astype(np.float16))
    maps, file, masks = tmp_path / "maps", tmp_path / "thresholds.json", "submission/anomaly_images_thresholded"
    printed("threshold --split validation --fpr 0.05 --out", file, maps)
    command = "threshold --split test_private --split test_private_mixed --apply"
    more = ("--write-maps", tmp_path / "submission/anomaly_images", "--write-masks", tmp_path / masks)
    printed(command, maps, "--threshold", file, *more)
    written = {path.relative_to(tmp_path / "submission").as_posix() for path in (tmp_path / "submission").rglob("*.*")}
    images = ("test_private/000_regular", "test_private_mixed/000_mixed")
    private = [f"{category}/{image}" for category in ("can", "rice") for image in images]
    assert written == {
        *(f"anomaly_images/{each}.tiff" for each in private),
        *(f"anomaly_images_thresholded/{each}.png" for each in private),
    }
    for each in private:
        scores = tifffile.imread(tmp_path / f"submission/anomaly_images/{each}.tiff")
        mask = np.asarray(Image.open(tmp_path / f"{masks}/{each}.png"))
        assert scores.dtype == np.float16
        assert np.array_equal(mask == 255, scores >= np.float32(Thresholds.load(file).of(each.split("/")[0])))


AT = [("float32", -1.0), ("float16", 29 / 7), ("float64", 2.0), ("float32", 31.5), ("uint8", 2.0), ("int32", 31.5)]


@pytest.mark.parametrize(("dtype", "threshold"), AT)
def test_counts_are_those_of_a_loop(tmp_path: Path, dtype: str, threshold: float) -> None:
    """Rates of each category and of each image, and binary masks, are those of single comparisons, pixel by pixel."""
    ignored = 40 if dtype == "float32" else 0
    maps, data, known = write_tied(tmp_path, dtype, ignored=ignored)
    ignore_index = 128 if ignored else None
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, threshold=threshold, ignore_index=ignore_index)
    for scores in evaluation.categories:
        expected = counted([each for each in known if each.category == scores.category], threshold)
        assert scores.at_threshold() == pytest.approx(expected, abs=1e-12, nan_ok=True)
    by_path = {image["path"]: image for scores in evaluation.categories for image in scores.images}
    for each in known:
        alone = counted([each], threshold)
        image = by_path[each.path]
        assert image["alarm"] == bool(alone["num_normal_alarms"] + alone["num_anomalous_alarms"])
        assert image["false_pixels"] == pytest.approx(alone["fpr"] * (each.mask == 0).sum(), abs=1e-9)
        assert image["found_share"] == pytest.approx(alone["recall"], abs=1e-12, nan_ok=True)
    for file, path in zip(evaluation.write_masks(tmp_path / "masks"), by_path, strict=True):
        (each,) = (each for each in known if each.path == path)
        assert file == tmp_path / "masks" / path
        expected_mask = np.where((each.scores >= np.float32(threshold)) & (each.mask != 128), 255, 0)
        assert np.array_equal(np.asarray(Image.open(file)), expected_mask)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Maps and data of two categories, and the maps of the normal images alone."""
    folder = tmp_path_factory.mktemp("two")
    maps, data = write_set(folder, TWO, size=(40, 48))
    return maps, data, normal_maps(maps, folder / "validation")


def test_three_commands_in_a_row(found: Found, tmp_path: Path, printed: Any) -> None:
    """A threshold is chosen, evaluated and applied in the shell; text, JSON and files say what Python says.

    It may be chosen and applied at once. Maps get masks, and TIFF of float16, under their own paths.
    """
    maps, data, validation = found
    file, out = tmp_path / "thresholds.json", tmp_path / "out"
    told = printed("threshold --fpr 0.02 --out", file, validation)
    thresholds = choose_thresholds(validation, fpr=0.02)
    assert told == f"{thresholds.summary()}\n"
    assert all(f"{value:.6g}" in told for value in thresholds.values.values())
    assert Thresholds.load(file).values == json.loads(file.read_text())["thresholds"] == thresholds.values

    given = (maps, "--data", data, "--threshold", file)
    told = printed(COMMAND, *given, "--write-masks", tmp_path / "masks", "--out", out)
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, threshold=thresholds)
    assert told.startswith(evaluation.summary())
    summary, num_alarms = json.loads((out / "summary.json").read_text()), 0
    for scores, category in zip(evaluation.categories, summary["categories"], strict=True):
        rates = scores.at_threshold()
        assert category["at_threshold"] == pytest.approx(rates, nan_ok=True)
        cells = [f"{rates['seg_f1']:.4f}", f"{rates['class_f1']:.4f}", f"{rates['num_normal_alarms']} of 3"]
        line = next(line for line in told.splitlines() if line.startswith(scores.category) and " of " in line)
        assert all(cell in line for cell in cells)
        num_alarms += rates["num_normal_alarms"] + rates["num_anomalous_alarms"]
    rows = [*csv.DictReader((out / "images.csv").read_text(encoding="utf-8").splitlines())]
    assert sum(row["alarm"] == "True" for row in rows) == num_alarms
    assert len([*(tmp_path / "masks").rglob("*.png")]) == len(rows)

    folders = ("--write-masks", tmp_path / "applied", "--write-maps", tmp_path / "half")
    printed("threshold --fpr 0.02", validation, "--apply", maps, *folders)
    for name in [path.relative_to(maps).with_suffix("") for path in maps.rglob("*.tiff")]:
        masks = [Image.open(tmp_path / folder / f"{name}.png") for folder in ("masks", "applied")]
        scores, half = (tifffile.imread(folder / f"{name}.tiff") for folder in (maps, tmp_path / "half"))
        expected = np.where(scores >= np.float32(thresholds.of(name.parts[0])), 255, 0)
        assert all(np.array_equal(mask, expected) for mask in masks)
        assert half.dtype == np.float16
        assert np.array_equal(half, scores.astype(np.float16))


def test_float16_that_moves_scores_is_warned_of(tmp_path: Path) -> None:
    """Pixels that change sides of the threshold, or overflow, are counted; with maps of float16 there are none."""
    scores = np.array([[0.5, 1.0004, 70000.0], [0.25, 1.0, 3.0]], dtype=np.float32)
    write_map(tmp_path / "maps/000.npy", scores)
    text = apply_thresholds(tmp_path / "maps", 1.0002, write_maps=tmp_path / "half").summary()
    assert "2 pixels, as of 000.npy, overflow or change sides of the threshold in float16" in text
    assert "float16" not in apply_thresholds(tmp_path / "maps", 1.0002).summary()
    write_map(tmp_path / "maps/000.npy", np.clip(scores, 0, 9).astype(np.float16))
    assert "warning" not in apply_thresholds(tmp_path / "maps", 1.0002, write_maps=tmp_path / "half").summary()


@pytest.mark.parametrize(("threshold", "text"), [(1e6, "No pixel reaches"), (-1e6, "Every pixel reaches")])
def test_threshold_of_another_unit_is_warned_of(found: Found, threshold: float, text: str) -> None:
    """No pixel reaches it, or every pixel does: evaluation and application say so, for each category."""
    maps, data, _ = found
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, threshold=threshold)
    assert all(any(text in warning for warning in scores.warnings) for scores in evaluation.categories)
    assert f"warning: (all): {text}" in apply_thresholds(maps, threshold).summary()


def test_files_are_read_whatever_the_default_device_is(found: Found) -> None:
    """Scores, thresholds and what these do are the same."""
    maps, data, _ = found

    def answers() -> list[str]:
        evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, metrics=("auroc", "image_auroc"), intervals=True)
        chosen = choose_thresholds(maps, alarms=0.4, data=data)
        return [each.summary() for each in (evaluation, chosen, apply_thresholds(maps, chosen))]

    with torch.device("meta"):
        under_meta = answers()
    assert under_meta == answers()


def test_results_are_shown_by_their_summaries(found: Found) -> None:
    """What Python shows of them are the tables, and not every image."""
    maps, data, _ = found
    for result in (evaluate(maps, data, fpr_bounds=BOUNDS), apply_thresholds(maps, 1.0)):
        assert repr(result) == str(result) == result.summary()
    (scores, *_) = evaluate(maps, data, fpr_bounds=BOUNDS).categories
    assert repr(scores) == f"<CategoryScores of {scores.category!r}: {scores.values()}>"


NUMBERS = ('"0.5"', "NaN", "true", "1e400", "9" * 400)
NO_THRESHOLDS = ["{}", "[]", "nonsense", '{"thresholds": {}}']
NO_THRESHOLDS += [f'{{"thresholds": {{"a": {number}}}}}' for number in NUMBERS]


@pytest.mark.parametrize("content", NO_THRESHOLDS)
def test_file_without_thresholds_is_refused(tmp_path: Path, content: str) -> None:
    """What does not hold a number for each category is no file of thresholds."""
    (tmp_path / "thresholds.json").write_text(content)
    with pytest.raises(BadDataError, match="thresholds"):
        Thresholds.load(tmp_path / "thresholds.json")


def test_category_without_threshold_is_refused_before_maps_are_read(found: Found, tmp_path: Path) -> None:
    """A file by hand will do, but it has to name each category that is evaluated, or a folder of each map."""
    maps, data, _ = found
    file = tmp_path / "thresholds.json"
    file.write_text('{"thresholds": {"bottle": 0.5}}')
    with pytest.raises(BadDataError, match="'screw', but the thresholds are those of bottle"):
        evaluate(maps, data, fpr_bounds=BOUNDS, threshold=file)
    with pytest.raises(BadDataError, match=r"screw/.* to be a category with a threshold, bottle, but found none"):
        apply_thresholds(maps, file)
    assert [each.category for each in apply_thresholds(maps / "bottle", file).categories] == ["bottle"]


WRONG = {
    "MAPS": "one of `--fpr` and `--alarms` to choose a threshold, or a `--threshold`",
    "MAPS --fpr 0.1 --ignore-index 7": "`--ignore-index` with `--data` or `--table` only",
    "--threshold 5 --apply MAPS --data x": "but got it and `--data`",
    "nowhere --fpr 0.1": "`MAPS` to be a file or folder of maps, but there is no nowhere",
    "MAPS --fpr 0.1 --apply MAPS --write-masks MAPS/masks": "apart from",
    "--threshold 5 --apply nowhere": "`--apply` to be a file or folder of maps",
    "MAPS --fpr 1e-3 --alarms 0.1": "exactly one of `--fpr` and `--alarms`",
    "MAPS --fpr 1.5": "`--fpr` to be in (0, 1), but got 1.5",
    "--fpr 0.1": "Expected `MAPS`",
    "MAPS --fpr 0.1 --write-masks out": "Expected `--apply`",
    "MAPS --threshold 0.5 --apply MAPS": "but got it and `MAPS`",
    "MAPS --fpr 0.1 --split x --apply MAPS": "`--split` where",
    "--threshold nowhere.json --apply MAPS": "no file nowhere.json",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_commands_end_with_code_2(found: Found, aupimo: Any, arguments: str) -> None:
    """Settings that do not go together are named by their options."""
    code, _, err = aupimo(f"threshold {arguments.replace('MAPS', str(found[2]))}")
    assert (code, WRONG[arguments] in err) == (2, True)


def test_masks_stay_in_their_folder_and_are_one_for_each_image(tmp_path: Path) -> None:
    """Names of images lead nowhere else, and two images of one name but for the suffix are refused."""
    set_of_maps: dict[str, Any] = {"../../a/000.png": np.eye(4), "/b/000.png": np.eye(4)}
    np.savez(tmp_path / "maps.npz", maps=np.stack([*set_of_maps.values()]), paths=np.array([*set_of_maps]))
    files = apply_thresholds(tmp_path / "maps.npz", 0.5, tmp_path / "out").files
    assert [file.relative_to(tmp_path / "out").as_posix() for file in files] == ["a/000.png", "b/000.png"]
    for suffix in ("npy", "tiff"):
        write_map(tmp_path / f"two/000.{suffix}", np.eye(4))
    with pytest.raises(BadDataError, match=r"000.npy and 000.tiff would share"):
        apply_thresholds(tmp_path / "two", 0.5, tmp_path / "out")


def test_no_masks_without_a_threshold(found: Found, tmp_path: Path) -> None:
    """Binary masks are of a threshold."""
    evaluation = evaluate(*found[:2], fpr_bounds=BOUNDS)
    with pytest.raises(ValueError, match="Expected a `threshold`"):
        evaluation.write_masks(tmp_path)
    assert all(scores.at_threshold() == {} for scores in evaluation.categories)


def test_a_threshold_is_printed_as_it_is(tmp_path: Path, printed: Any) -> None:
    """What is printed, given as a number, does the same: the next float above 3 is not 3."""
    for number in range(6):
        write_map(tmp_path / f"maps/{number}.npy", np.full((3, 3), 3.0 if number < 2 else 1.0))
    threshold = printed("threshold --alarms 0.3", tmp_path / "maps").splitlines()[1].split()[2]
    assert np.float32(threshold) == np.nextafter(np.float32(3), np.float32(4))
    told = printed(f"threshold --threshold {threshold} --json --apply", tmp_path / "maps")
    (applied,) = json.loads(told)["applied"]
    assert (applied["num_alarms"], applied["num_images"]) == (0, 6)
    assert "No pixel reaches the threshold 3.0000002; the highest score is 3." in applied["warnings"][0]


def test_nothing_that_is_read_is_replaced(found: Found, tmp_path: Path, aupimo: Any) -> None:
    """Masks and maps are not written into folders of maps or data, nor over the images of a table."""
    maps, data, _ = found
    for folder in (maps, maps / "masks"):
        with pytest.raises(ValueError, match="apart from"):
            apply_thresholds(maps, 0.5, folder)
        with pytest.raises(ValueError, match="apart from"):
            apply_thresholds(maps, 0.5, write_maps=folder)
    evaluation = evaluate(maps, data, fpr_bounds=BOUNDS, threshold=0.5)
    for folder in (maps, data, data / "masks"):
        with pytest.raises(ValueError, match="apart from"):
            evaluation.write_masks(folder)
        assert aupimo(f"{COMMAND} --threshold 1", maps, "--data", data, "--write-masks", folder)[0] == 2
    shutil.copytree(data.parent, tmp_path / "copy")
    table = tmp_path / "copy/table.csv"
    assert aupimo("evaluate --write-table", table, "--data", tmp_path / "copy/data")[0] == 0
    of_table = evaluate(tmp_path / "copy/maps", table=table, fpr_bounds=BOUNDS, threshold=0.5)
    with pytest.raises(BadDataError, match="is read, and would be replaced"):
        of_table.write_masks(tmp_path / "copy/data")


def test_scores_are_printed_whatever_becomes_of_the_masks(found: Found, tmp_path: Path, aupimo: Any) -> None:
    """A place where nothing can be written is told before any map is read; what fails later costs the masks only."""
    maps, data, validation = found
    (tmp_path / "file").touch()
    given = (f"{COMMAND} --threshold 1", maps, "--data", data, "--write-masks")
    code, told, err = aupimo(*given, tmp_path / "file/masks")
    assert (code, told, "is a file" in err) == (1, "", True)
    for out in (tmp_path, tmp_path / "file/x.json"):
        assert aupimo("threshold --fpr 0.1 --out", out, validation)[0] == 1
    (tmp_path / "masks/bottle/test/good/000.png").mkdir(parents=True)
    code, told, _ = aupimo(*given, tmp_path / "masks")
    assert (code, "CLASS F1" in told) == (1, True)


def test_all_bad_maps_are_named_and_nothing_is_written(found: Found, tmp_path: Path) -> None:
    """A map that cannot be read and one with NaN are named together, whether a threshold is chosen or applied."""
    shutil.copytree(found[2], tmp_path / "maps")
    (tmp_path / "maps/bottle/000.tiff").write_bytes(b"junk")
    write_map(tmp_path / "maps/screw/001.tiff", np.full((4, 4), np.nan, np.float32))
    for call in (
        lambda: choose_thresholds(tmp_path / "maps", fpr=0.1),
        lambda: apply_thresholds(tmp_path / "maps", 0.5, tmp_path / "out"),
    ):
        with pytest.raises(BadDataError) as caught:
            call()
        assert [bad_file.path for bad_file in caught.value.bad_files] == ["bottle/000.tiff", "screw/001.tiff"]
    assert not (tmp_path / "out").exists()


def test_one_split_of_a_tree_is_evaluated(found: Found, tmp_path: Path) -> None:
    """Maps of other splits in the same tree are left out by name, in all commands."""
    maps, data, validation = found
    shutil.copytree(maps, tmp_path / "maps")
    for category in ("bottle", "screw"):
        shutil.copytree(validation / category, tmp_path / f"maps/{category}/validation/good")
    evaluation = evaluate(tmp_path / "maps", data, fpr_bounds=BOUNDS, split="test")
    expected = evaluate(maps, data, fpr_bounds=BOUNDS)
    assert [each.values() for each in evaluation.categories] == [each.values() for each in expected.categories]
    alone = choose_thresholds(tmp_path / "maps", fpr=0.1, split="validation")
    assert alone.values == choose_thresholds(validation, fpr=0.1).values
    assert alone.values == choose_thresholds(tmp_path / "maps", fpr=0.1, data=data, split="test").values


def test_numbers_of_numpy_are_thresholds(tmp_path: Path) -> None:
    """They become Python's numbers, which can be written."""
    Thresholds({"a": np.float32(0.5)}).save(tmp_path / "thresholds.json")
    (tmp_path / "thresholds.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "thresholds.json").read_bytes())
    assert Thresholds.load(tmp_path / "thresholds.json").values == {"a": 0.5}
