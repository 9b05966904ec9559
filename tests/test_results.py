"""Results on disk and in words."""

import functools
import json
import math
import sys
import warnings
from collections import OrderedDict
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aupimo_torchmetrics import AUPIMO, AUPIMOResult, PIMOResult, __version__
from aupimo_torchmetrics._files import results as _result_files
from aupimo_torchmetrics.functional import pimo

BENCHMARK = Path(__file__).parent / "data" / "published" / "benchmark"
OFFICIAL_KEYS = {
    "shared_fpr_metric",
    "fpr_lower_bound",
    "fpr_upper_bound",
    "num_threshs",
    "thresh_lower_bound",
    "thresh_upper_bound",
    "aupimos",
}


def make_result(num_thresholds: int | None = None, shared_fpr: str = "mean") -> AUPIMOResult:
    """Score four normal and four anomalous images, with pixels enough that 5000 thresholds meet the bounds."""
    masks = torch.zeros(8, 100, 100, dtype=torch.bool)
    masks[4:, 40:60, 40:60] = True
    maps = torch.randn(masks.shape, generator=torch.Generator().manual_seed(0)) + 2 * masks
    metric = AUPIMO(num_thresholds, fpr_bounds=(1e-2, 1e-1), shared_fpr=shared_fpr)
    metric.update(maps, masks)
    return metric.result()


@pytest.mark.parametrize("paths", [None, [f"image_{i}.png" for i in range(8)]])
@pytest.mark.parametrize("with_ids", [True, False])
def test_ids_that_were_set_come_back(tmp_path: Path, with_ids: bool, paths: list[str] | None) -> None:
    """Ids that were set in a result, or removed, are saved in place of those of the images, with paths and without."""
    before = make_result()
    ids = torch.arange(8, 0, -1) if with_ids else None
    if not with_ids:
        before = replace(before, image_ids=torch.arange(8))
        before.save(tmp_path / "aupimos.json")
        before = AUPIMOResult.load(tmp_path / "aupimos.json")
        assert before.image_ids.tolist() == [*range(8)]
    result = replace(before, image_ids=ids, paths=paths)
    result.save(tmp_path / "aupimos.json")
    loaded = AUPIMOResult.load(tmp_path / "aupimos.json")
    assert (None if loaded.image_ids is None else loaded.image_ids.tolist()) == (None if ids is None else ids.tolist())
    assert loaded.paths == paths
    assert loaded.threshold_at(0.05) == result.threshold_at(0.05)


@pytest.mark.parametrize("name", ["paths", "image_ids", "image_classes", "mask_sizes"])
def test_a_result_that_could_not_be_read_is_not_saved(tmp_path: Path, name: str) -> None:
    """A wrong number of names or ids is an error that names them, and leaves the files as they were."""
    result = make_result()
    result.save(tmp_path / "aupimos.json")
    wrong = replace(result, **{name: ["a.png"] * 7 if name == "paths" else torch.ones(7, dtype=torch.int64)})
    with pytest.raises(ValueError, match=f"Expected `{name}` to hold one for each of 8 scores, but got 7"):
        wrong.save(tmp_path / "aupimos.json")
    assert AUPIMOResult.load(tmp_path / "aupimos.json").mean == result.mean


def test_the_shared_fpr_is_in_the_files(tmp_path: Path) -> None:
    """Scores and curves say whether the mean or the maximum of the FPRs is meant, and what loads knows it."""
    for shared_fpr, name in (("mean", "mean-per-image-fpr"), ("max", "max-per-image-fpr")):
        make_result(shared_fpr=shared_fpr).save(tmp_path / "aupimos.json")
        assert json.loads((tmp_path / "aupimos.json").read_text(encoding="utf-8"))["shared_fpr_metric"] == name
        assert AUPIMOResult.load(tmp_path / "aupimos.json").shared_fpr == shared_fpr
        make_curves().save(tmp_path / "curves.pt", shared_fpr)
        assert torch.load(tmp_path / "curves.pt", weights_only=True)["shared_fpr_metric"] == name
    with pytest.raises(ValueError, match="`shared_fpr` to be 'mean' or 'max'"):
        make_curves().save(tmp_path / "curves.pt", "median")


def test_all_published_files_load() -> None:
    """The files that the metric's authors published, of 13 models on 15 categories, give their scores and bounds."""
    files = sorted(BENCHMARK.glob("*/mvtec/*/aupimo/aupimos.json"))
    assert len(files) == 13 * 15
    for file in files:
        result = AUPIMOResult.load(file)
        content = json.loads(file.read_text(encoding="utf-8"))
        expected = torch.tensor(content["aupimos"], dtype=torch.float64)
        torch.testing.assert_close(result.aupimos, expected, rtol=0, atol=0, equal_nan=True)
        assert result.fpr_bounds == (1e-5, 1e-4)
        assert result.threshold_bounds == (content["thresh_lower_bound"], content["thresh_upper_bound"])
        assert result.num_thresholds == "unknown"
        assert "unknown number of thresholds" in result.protocol
        assert "unknown software" in result.protocol
        assert result.paths is not None
        is_normal = torch.tensor(["/good/" in path for path in result.paths])
        torch.testing.assert_close(result.image_classes, (~is_normal).long(), rtol=0, atol=0)


@pytest.mark.parametrize("num_thresholds", [None, 5000])
def test_saved_keys_are_the_official_ones(tmp_path: Path, num_thresholds: int | None) -> None:
    """A file has exactly the keys that the official loader takes; `num_threshs` counts the thresholds in range."""
    result = make_result(num_thresholds)
    result.save(tmp_path / "aupimos.json")
    content = json.loads((tmp_path / "aupimos.json").read_text(encoding="utf-8"))
    assert set(content) == OFFICIAL_KEYS
    assert content["num_threshs"] == result.num_points
    assert (result.num_points is None) == (num_thresholds is None)


def test_undefined_thresholds_are_saved_as_null(tmp_path: Path) -> None:
    """Thresholds that are not defined are null in the file and NaN after loading."""
    metric = AUPIMO()
    metric.update(torch.rand(2, 4, 4), torch.ones(2, 4, 4))
    with pytest.warns(UserWarning, match="none of the 2 images is normal"):
        metric.result().save(tmp_path / "aupimos.json")
    assert '"thresh_lower_bound": null' in (tmp_path / "aupimos.json").read_text(encoding="utf-8")
    assert all(math.isnan(bound) for bound in AUPIMOResult.load(tmp_path / "aupimos.json").threshold_bounds)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path) -> None:
    """If writing fails, the file that was there is unchanged and no other file is left."""
    path = tmp_path / "aupimos.json"
    result = make_result()
    result.save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        replace(result, paths=8 * [object()]).save(path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        replace(result, warnings=(object(),)).save(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["aupimos.json", "aupimos.safetensors"]
    assert_same_result(AUPIMOResult.load(path), result)


@functools.cache
def make_awkward_results() -> dict[str, AUPIMOResult]:
    """Results of all kinds: exact, sampled, by the maximum, with ids and texts, undefined, pruned, of ties."""
    masks = torch.zeros(6, 30, 40, dtype=torch.bool)
    masks[3:, 5:12, 5:20] = True
    maps = torch.randn(masks.shape, generator=torch.Generator().manual_seed(1)) + 2 * masks
    texts = ["b", "a/1.png", "日本", "ä", "c", "a/0.png"]
    updates: dict[str, tuple[AUPIMO, Any, Any, Any]] = {
        "exact": (AUPIMO(fpr_bounds=(1e-2, 1e-1)), maps, masks, None),
        "sampled": (AUPIMO(3000, (1e-2, 1e-1)), maps, masks, None),
        "max": (AUPIMO(fpr_bounds=(1e-2, 1e-1), shared_fpr="max"), maps, masks, None),
        "ids": (AUPIMO(fpr_bounds=(1e-2, 1e-1)), maps, masks, [4, 1, 9, 0, 2, 1]),
        "texts": (AUPIMO(fpr_bounds=(1e-2, 1e-1)), maps, masks, texts),
        "ties": (AUPIMO(fpr_bounds=(1e-2, 1e-1)), maps.round(), masks, None),
        "constant": (AUPIMO(fpr_bounds=(1e-2, 1e-1)), maps * 0, masks, None),
        "no normal image": (AUPIMO(fpr_bounds=(1e-2, 1e-1)), maps[3:], masks[3:], None),
        "no anomalous image": (AUPIMO(fpr_bounds=(1e-2, 1e-1)), maps[:3], masks[:3], None),
        "no image": (AUPIMO(fpr_bounds=(1e-2, 1e-1)), maps[:0], masks[:0], None),
        "pruned": (AUPIMO(fpr_bounds=(1e-3, 1e-2), normal_buffer=10), maps, masks, None),
        "infinite": (AUPIMO(50, (1e-2, 1e-1)), maps.masked_fill(maps > 2, torch.inf), masks, None),
    }
    results = {}
    for name, (metric, preds, target, ids) in updates.items():
        for index in range(len(preds)):
            metric.update(preds[index : index + 1], target[index : index + 1], None if ids is None else [ids[index]])
        metric.update(preds[:0], target[:0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results[name] = metric.result()
    return results


def assert_same_result(actual: AUPIMOResult, expected: AUPIMOResult) -> None:
    """Assert that every member of two results answers the same, to the last bit."""
    exactly = {"rtol": 0.0, "atol": 0.0, "equal_nan": True}
    for name in ("aupimos", "image_classes", "image_ids", "mask_sizes", "mean", "threshold_bounds"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), **exactly)
    for name in ("fpr_bounds", "num_thresholds", "num_points", "shared_fpr", "paths", "version", "warnings"):
        assert getattr(actual, name) == getattr(expected, name), name
    assert (actual.protocol, actual.chance, str(actual), repr(actual)) == (
        expected.protocol,
        expected.chance,
        str(expected),
        repr(expected),
    )
    anomaly_map = torch.linspace(-3, 5, 1000)
    torch.testing.assert_close(actual.pixel_aupimo(anomaly_map), expected.pixel_aupimo(anomaly_map), **exactly)
    torch.testing.assert_close(tuple(actual.curves()), tuple(expected.curves()), **exactly)
    lower, upper = actual.fpr_bounds
    for fpr in (lower / 10, (lower + upper) / 2, upper):
        torch.testing.assert_close(actual.threshold_at(fpr), expected.threshold_at(fpr), **exactly)
        points = actual.operating_point(fpr=fpr), expected.operating_point(fpr=fpr)
        torch.testing.assert_close(tuple(points[0]), tuple(points[1]), **exactly)
    torch.testing.assert_close(
        tuple(actual.operating_point(threshold=5.0)), tuple(expected.operating_point(threshold=5.0)), **exactly
    )


@pytest.mark.parametrize("name", make_awkward_results())
@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("kind", [str, Path])
def test_every_member_comes_back(tmp_path: Path, name: str, suffix: str, kind: Any) -> None:
    """A result of any kind, saved and loaded by the path of either file, answers to the last bit as before."""
    result = make_awkward_results()[name]
    result.save(kind(tmp_path / f"aupimos.{suffix}"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aupimos.json", "aupimos.safetensors"]
    loaded = AUPIMOResult.load(kind(tmp_path / f"aupimos.{suffix}"))
    assert_same_result(loaded, result)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "aupimos.json").read_bytes()
    assert_same_result(AUPIMOResult.load(tmp_path / "again.json"), result)


def test_the_details_are_complete_in_themselves(tmp_path: Path) -> None:
    """The file of tensors gives all back without the JSON file, wherever it is moved."""
    result = make_result()
    result.save(tmp_path / "aupimos.json")
    (tmp_path / "aupimos.json").unlink()
    (tmp_path / "aupimos.safetensors").rename(tmp_path / "moved.safetensors")
    assert_same_result(AUPIMOResult.load(tmp_path / "moved.safetensors"), result)


def test_details_of_other_scores_are_ignored_with_a_warning(tmp_path: Path) -> None:
    """Scores that another program wrote are not given the thresholds of those that were there before."""
    path = tmp_path / "aupimos.json"
    result = make_result(5000)
    result.save(path)
    text = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(text)), encoding="utf-8")  # the same in another layout
    assert AUPIMOResult.load(path).num_thresholds == 5000
    changes: dict[str, Any] = {
        "aupimos": [math.nan] * 4 + [0.1, 0.2, 0.3, 0.4],
        "fpr_upper_bound": 0.2,
        "thresh_lower_bound": 0.0,
        "num_threshs": 400,
        "paths": ["a"] * 8,
        "shared_fpr_metric": "max-per-image-fpr",
    }
    for key, value in changes.items():
        path.write_text(json.dumps({**json.loads(text), key: value}), encoding="utf-8")
        with pytest.warns(UserWarning, match=r"without .*aupimos\.safetensors, which belongs to other scores"):
            loaded = AUPIMOResult.load(path)
        assert (loaded.num_thresholds, loaded.warnings) == ("unknown", ())
        with pytest.raises(ValueError, match="loaded from a file"):
            loaded.threshold_at(0.05)


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_a_result_that_knows_scores_only_comes_back(tmp_path: Path, suffix: str) -> None:
    """Settings, classes, ids and warnings of a result made by hand, or read from an official file, are not lost."""
    make_result().save(tmp_path / "aupimos.json")  # is replaced
    scores = torch.tensor([0.5, math.nan, 1.0], dtype=torch.float64)
    made = AUPIMOResult(scores, (1e-5, 1e-4), (0.1, 0.2), 5000, 400, image_ids=torch.arange(3), warnings=("a", "b"))
    official = AUPIMOResult.load(next(BENCHMARK.glob("*/mvtec/*/aupimo/aupimos.json")))
    for result in (made, official):
        result.save(tmp_path / "aupimos.json")
        loaded = AUPIMOResult.load(tmp_path / f"aupimos.{suffix}")
        for name in ("aupimos", "image_ids", "image_classes", "mask_sizes", "threshold_bounds"):
            expected = getattr(result, name)
            torch.testing.assert_close(getattr(loaded, name), expected, rtol=0, atol=0, equal_nan=True)
        assert (loaded.protocol, loaded.warnings, loaded.paths) == (result.protocol, result.warnings, result.paths)
        assert (loaded.num_thresholds, loaded.num_points) == (result.num_thresholds, result.num_points)
        with pytest.raises(ValueError, match="loaded from a file"):
            loaded.threshold_at(1e-5)


def test_damaged_details_are_refused_and_the_scores_can_be_read_without_them(tmp_path: Path) -> None:
    """The error names the file that is damaged, and its advice gives the scores."""
    path, details = tmp_path / "aupimos.json", tmp_path / "aupimos.safetensors"
    result = make_result()
    result.save(path)
    whole = details.read_bytes()
    for content in (b"", whole[:5], whole[:100], whole[:-7], whole.replace(b"num_kept", b"num_lost"), bytes(500)):
        details.write_bytes(content)
        for each in (path, details):
            with pytest.raises(ValueError, match=r"aupimos\.safetensors to hold the details of .* remove it"):
                AUPIMOResult.load(each)
    details.unlink()
    loaded = AUPIMOResult.load(path)
    torch.testing.assert_close(loaded.aupimos, result.aupimos, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(FileNotFoundError):
        AUPIMOResult.load(details)


def test_a_changed_bit_is_noticed(tmp_path: Path) -> None:
    """A file of tensors in which a single bit has changed gives no other answers: it is refused, or not used."""
    path, details = tmp_path / "aupimos.json", tmp_path / "aupimos.safetensors"
    make_result().save(path)
    whole = details.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(whole), 60):
        changed = bytearray(whole)
        changed[position] ^= 1 << int(position) % 8
        details.write_bytes(changed)
        with pytest.raises(ValueError, match="to hold the details of"):
            AUPIMOResult.load(path)


def test_names_that_end_otherwise(tmp_path: Path) -> None:
    """A file that is written ends as its format says; files under other names, of earlier versions, are still read."""
    for name in ("scores", "x.txt", "model_v1.0", "curves.pt", "json"):
        with pytest.raises(ValueError, match=r"to end in `\.json` or `\.safetensors`, but got .*" + name):
            make_result().save(tmp_path / name)
    for name in ("curves", "x.json", "curves.pt.txt"):
        with pytest.raises(ValueError, match=r"to end in `\.pt` or `\.pth`, but got .*" + name):
            make_curves().save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    results = make_awkward_results()
    for name, kind in {"model_v1.0": "exact", "model_v1.1": "ties"}.items():
        results[kind].save(tmp_path / "m.json")
        (tmp_path / "m.json").rename(tmp_path / name)
        (tmp_path / "m.safetensors").rename(tmp_path / f"{name}.safetensors")
        assert_same_result(AUPIMOResult.load(tmp_path / name), results[kind])


def bad_details() -> dict[str, tuple[dict[str, Any], dict[str, Any], str]]:
    """Tensors and settings, each in JSON, that cannot be those of a result, and what is said of them."""
    return {
        "another format": ({}, {"format": "other"}, "its format is .*other"),
        "dtype": ({"num_kept": torch.zeros(8)}, {}, "`num_kept` is of dtype torch.float32"),
        "shape": ({"floor": torch.zeros(1)}, {}, r"`floor` is of dtype torch.float32 and shape \(1,\)"),
        "counts": ({"num_kept": torch.full((8,), 2**62)}, {}, "impossible size"),
        "negative counts": ({"num_kept": torch.tensor([-1, 1] * 4)}, {}, "`num_kept` does not fit"),
        "number of images": ({"image_ids": torch.zeros(7, dtype=torch.int64)}, {}, "do not fit together"),
        "number of scores": ({"aupimos": torch.zeros(3).double()}, {}, "3 scores of 8 images"),
        "scores": ({"aupimos": torch.full((8,), 2.0).double()}, {}, r"not scores in \[0, 1\]"),
        "NaN": ({"floor": torch.tensor(math.nan)}, {}, "NaN among the scores"),
        "sizes": ({"num_pixels": torch.zeros(8, dtype=torch.int64)}, {}, "impossible size"),
        "ids": ({"image_ids": torch.full((8,), -2)}, {}, "impossible size or id"),
        "bounds": ({}, {"fpr_bounds": [0.5, 0.1]}, "0 < lower < upper"),
        "thresholds": ({}, {"threshold_bounds": ["a", "b"]}, "could not convert"),
        "too many thresholds": ({}, {"num_thresholds": 10**12}, "at most 16777216"),
        "no number of thresholds": ({}, {"num_thresholds": "many"}, "None or an integer"),
        "number of points": ({}, {"num_points": 1.5}, "`num_points` is of type float"),
        "version": ({}, {"version": 3}, "`version` is of type int"),
        "shared FPR": ({}, {"shared_fpr": "median"}, "'mean' or 'max'"),
        "paths": ({}, {"paths": ["a"]}, "1 `paths` for 8"),
        "warnings": ({}, {"warnings": "all well"}, "`warnings` are not texts"),
    }


@pytest.mark.parametrize("kind", bad_details())
def test_details_that_do_not_fit_together_are_refused(tmp_path: Path, kind: str) -> None:
    """A well-formed file that no result has written is a ValueError with the reason."""
    path = tmp_path / "aupimos.safetensors"
    make_result().save(path)
    tensors, settings, message = bad_details()[kind]
    with safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), **{name: json.dumps(value) for name, value in settings.items()}}
    tensors = {**load_file(path), **tensors}
    metadata["sha256"] = _result_files.checksum(tensors, metadata)
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=f"could not read it: .*{message}"):
        AUPIMOResult.load(path)


def test_a_result_is_frozen() -> None:
    """What a metric has cached cannot be changed by accident; a changed copy knows all that the original does."""
    result = make_result()
    with pytest.raises(FrozenInstanceError):
        result.paths = ["a"]  # type: ignore[misc]
    named = replace(result, paths=list("abcdefgh"))
    assert named.threshold_at(0.05) == result.threshold_at(0.05)
    assert result.paths is None


@pytest.mark.parametrize("name", make_awkward_results())
def test_warnings_are_those_that_were_warned_of(name: str) -> None:
    """The result holds the texts of all warnings, which are given once, when it is computed."""
    masks = torch.zeros(3, 10, 10, dtype=torch.bool)
    masks[2] = True
    metric = AUPIMO()
    metric.update(torch.rand(3, 10, 10), masks)
    with pytest.warns(UserWarning, match="cannot be resolved") as caught:
        result = metric.result()
    assert result.warnings == tuple(str(warning.message) for warning in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.result(), metric.compute(), result.curves(), metric.curves()
    assert (make_awkward_results()[name].warnings == ()) == (name in {"exact", "max", "texts", "ties", "pruned"})


def counted_point(maps: Any, masks: Any, threshold: float, shared_fpr: str) -> tuple[float, list[float], float]:
    """What a threshold does, counted pixel by pixel."""
    rates = [
        float((scores >= threshold).double().mean()) for scores, mask in zip(maps, masks, strict=True) if not mask.any()
    ]
    tprs = [
        float((scores[mask] >= threshold).double().mean()) if mask.any() else math.nan
        for scores, mask in zip(maps, masks, strict=True)
    ]
    alarms = [rate > 0 for rate in rates]
    return (max(rates) if shared_fpr == "max" else sum(rates) / len(rates)), tprs, sum(alarms) / len(alarms)


@pytest.mark.parametrize("shared_fpr", ["mean", "max"])
@pytest.mark.parametrize("num_thresholds", [None, 3000])
def test_operating_points_are_what_counting_says(shared_fpr: Any, num_thresholds: int | None) -> None:
    """Shared FPR, TPRs and alarms of a threshold are those of the maps, for images of several sizes."""
    sizes = [(30, 40), (20, 25), (41, 17), (30, 40), (22, 31)]
    generator = torch.Generator().manual_seed(5)
    maps = [torch.randn(size, generator=generator) for size in sizes]
    masks = [torch.zeros(size, dtype=torch.bool) for size in sizes]
    masks[1][2:9, 3:8] = masks[4][:5, :5] = True
    metric = AUPIMO(num_thresholds, (1e-2, 1e-1), shared_fpr=shared_fpr)
    metric.update(maps, masks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sampling
        result = metric.result()
    for fpr in (0.01, 0.05, 0.1):
        point = result.operating_point(fpr=fpr)
        assert point.threshold == result.threshold_at(fpr)
        expected = counted_point(maps, masks, point.threshold, shared_fpr)
        assert point.shared_fpr == pytest.approx(expected[0], abs=1e-15)  # one sum in another order
        assert num_thresholds or point.shared_fpr <= fpr + 1e-15
        assert point.per_image_tprs.tolist() == pytest.approx(expected[1], nan_ok=True, abs=1e-15)
        assert point.share_of_normal_images_with_alarm == pytest.approx(expected[2])
    for threshold in (-10.0, 0.3, float(maps[0].max()), math.inf):
        point = result.operating_point(threshold=threshold)
        expected = counted_point(maps, masks, threshold, shared_fpr)
        assert (point.shared_fpr, point.share_of_normal_images_with_alarm) == pytest.approx((expected[0], expected[2]))
        assert point.per_image_tprs.tolist() == pytest.approx(expected[1], nan_ok=True)


def test_operating_points_need_one_known_threshold() -> None:
    """Both, neither, NaN and an FPR out of range are errors with their remedy."""
    result = make_awkward_results()["pruned"]
    with pytest.raises(ValueError, match="exactly one of `fpr` and `threshold`"):
        result.operating_point()
    with pytest.raises(ValueError, match="exactly one of `fpr` and `threshold`"):
        result.operating_point(fpr=0.05, threshold=1.0)
    with pytest.raises(ValueError, match="`threshold` to be a number, but got NaN"):
        result.operating_point(threshold=math.nan)
    with pytest.raises(ValueError, match=r"`fpr` to be in \(0, 0\.01\], but got 0\.0"):
        result.operating_point(fpr=0.0)


def test_operating_points_without_a_class_of_images() -> None:
    """Without normal images the rates of these are NaN, without anomalous ones all TPRs are."""
    results = make_awkward_results()
    point = results["no normal image"].operating_point(threshold=1.0)
    assert math.isnan(point.shared_fpr)
    assert math.isnan(point.share_of_normal_images_with_alarm)
    assert not point.per_image_tprs.isnan().any()
    assert math.isnan(results["no normal image"].operating_point(fpr=0.05).threshold)
    point = results["no anomalous image"].operating_point(fpr=0.05)
    assert 0 < point.shared_fpr <= 0.05
    assert point.per_image_tprs.isnan().all()


def test_the_table_has_a_row_for_each_image() -> None:
    """Index, path, id, class, mask pixels, score and TPRs stand in columns; what is not known is missing."""
    pd = pytest.importorskip("pandas")
    results = make_awkward_results()
    table = results["ids"].to_dataframe()
    columns = ["index", "path", "image_id", "is_anomalous", "mask_pixels", "aupimo", "tpr_at_lower", "tpr_at_upper"]
    assert list(table.columns) == columns
    assert table["index"].tolist() == [*range(5)]
    assert table["image_id"].tolist() == [0, 1, 2, 4, 9]
    assert table["mask_pixels"].tolist() == [105, 0, 105, 0, 0]
    assert table["is_anomalous"].tolist() == [True, False, True, False, False]
    assert table["path"].isna().all()
    upper, lower = (results["ids"].operating_point(threshold=each) for each in results["ids"].threshold_bounds)
    for name, expected in (
        ("aupimo", results["ids"].aupimos),
        ("tpr_at_lower", lower.per_image_tprs),
        ("tpr_at_upper", upper.per_image_tprs),
    ):
        assert np.array_equal(table[name].to_numpy(), expected.numpy(), equal_nan=True)
    assert results["texts"].to_dataframe()["path"].tolist() == results["texts"].paths
    assert results["texts"].to_dataframe()["image_id"].isna().all()
    official = AUPIMOResult.load(next(BENCHMARK.glob("*/mvtec/*/aupimo/aupimos.json"))).to_dataframe()
    assert official["tpr_at_upper"].isna().all()
    assert official["mask_pixels"].isna().all()
    assert isinstance(official, pd.DataFrame)
    assert len(results["no image"].to_dataframe()) == 0


def test_the_table_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas the error names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"expects `pandas` to be installed.*aupimo-torchmetrics\[table\]"):
        make_result().to_dataframe()


@pytest.mark.parametrize("name", make_awkward_results())
def test_a_printed_result_is_a_few_lines(name: str) -> None:
    """Printed, a result is one block of lines that can be read, without tensors; in a list it is one line."""
    result = make_awkward_results()[name]
    lines = str(result).splitlines()
    assert len(lines) <= 4 + len(result.warnings)
    assert lines[0].startswith("AUPIMO ")
    assert result.protocol in lines
    assert "tensor" not in str(result) + repr(result)
    assert len(repr(result).splitlines()) == 1
    assert all(text in str(result) for text in result.warnings)


def test_equal_thresholds_are_saved_as_the_official_package_takes_them(tmp_path: Path) -> None:
    """The official loader refuses equal thresholds, so they are null in its file, and in the other they are not."""
    masks = torch.zeros(2, 10, 10)
    masks[1, :3] = 1
    metric = AUPIMO(2, fpr_bounds=(1e-2, 1e-1))
    metric.update(torch.rand(masks.shape), masks)
    with pytest.warns(UserWarning, match="may be inaccurate"):
        result = metric.result()
    assert result.threshold_bounds[0] == result.threshold_bounds[1]
    result.save(tmp_path / "aupimos.json")
    content = json.loads((tmp_path / "aupimos.json").read_text(encoding="utf-8"))
    assert (content["thresh_lower_bound"], content["thresh_upper_bound"], content["num_threshs"]) == (None, None, None)
    assert AUPIMOResult.load(tmp_path / "aupimos.json").threshold_bounds == result.threshold_bounds


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "score": ({"aupimos": [0.5, 1.5]}, r"not scores in \[0, 1\]"),
    "nested": ({"aupimos": [[0.5, 0.5]]}, r"not scores in \[0, 1\]"),
    "paths": ({"paths": ["a.png"]}, "there are 1 `paths` for 2 `aupimos`"),
    "path": ({"paths": ["a.png", 1]}, "`paths` are not texts"),
    "bounds": ({"fpr_lower_bound": 0.1}, "0 < lower < upper <= 1"),
    "thresholds": ({"thresh_lower_bound": 3.0}, "`thresh_lower_bound` 3 is above `thresh_upper_bound` 2"),
    "shared FPR": (
        {"shared_fpr_metric": "median-fpr"},
        "`shared_fpr_metric` is 'median-fpr', not mean-per-image-fpr or max",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_inconsistent_files_are_refused(tmp_path: Path, fault: str) -> None:
    """A file whose parts do not fit together raises a ValueError with its name and the fault."""
    change, message = FAULTS[fault]
    content = {
        "shared_fpr_metric": "mean-per-image-fpr",
        "fpr_lower_bound": 1e-5,
        "fpr_upper_bound": 1e-4,
        "num_threshs": None,
        "thresh_lower_bound": 1.0,
        "thresh_upper_bound": 2.0,
        "aupimos": [0.5, math.nan],
    }
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert AUPIMOResult.load(path).mean == 0.5
    path.write_text(json.dumps({**content, **change}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"wrong\.json: .*{message}"):
        AUPIMOResult.load(path)


def make_curves() -> PIMOResult:
    """Return curves of a normal and an anomalous image."""
    masks = torch.zeros(2, 10, 10)
    masks[1, :3] = 1
    return pimo(torch.rand(masks.shape), masks, 5)


def test_saved_curves_come_back(tmp_path: Path) -> None:
    """Curves survive a round trip, as tensors or as arrays, under the names of the official package."""
    curves = make_curves()
    for saved in (curves, PIMOResult(*(part.numpy() for part in curves))):
        saved.save(tmp_path / "curves.pt")
        torch.testing.assert_close(tuple(PIMOResult.load(tmp_path / "curves.pt")), tuple(curves), equal_nan=True)
    content = torch.load(tmp_path / "curves.pt", weights_only=True)
    assert set(content) == {"shared_fpr_metric", "threshs", "shared_fpr", "per_image_tprs"}
    assert [file.name for file in tmp_path.iterdir()] == ["curves.pt"]


class Code:
    """What must not be run when a file is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Run something when unpickled."""
        return (pytest.fail, ("code in a file was run",))


CURVE_FAULTS: dict[str, tuple[Any, str]] = {
    "code": (Code(), "could not read"),
    "list": ([1, 2], "could not read"),
    "no curves": ({"threshs": torch.zeros(3)}, "could not read .* KeyError"),
    "text": ({"threshs": "a", "shared_fpr": "b", "per_image_tprs": "c"}, "floating point tensors"),
    "shapes": (
        {"threshs": torch.zeros(3), "shared_fpr": torch.zeros(3), "per_image_tprs": torch.zeros(2, 4)},
        r"curves \(K,\), \(K,\) and \(N, K\), but got \(3,\), \(3,\), \(2, 4\)",
    ),
}


@pytest.mark.parametrize("fault", CURVE_FAULTS)
def test_foreign_curves_are_refused(tmp_path: Path, fault: str) -> None:
    """A file without curves, or with code in it, raises a ValueError with its name, and no code is run."""
    content, message = CURVE_FAULTS[fault]
    torch.save(content, tmp_path / "curves.pt")
    with pytest.raises(ValueError, match=message) as caught:
        PIMOResult.load(tmp_path / "curves.pt")
    assert "curves.pt" in str(caught.value)


class WithHooks:
    """Is read as a tensor of zeros whose hooks are a type, as in a damaged file."""

    def __init__(self, *shape: int) -> None:
        self.zeros = torch.zeros(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        storage = self.zeros._typed_storage()
        size, stride = self.zeros.shape, self.zeros.stride()
        return torch._utils._rebuild_tensor_v2, (storage, 0, tuple(size), stride, False, OrderedDict)


def test_curves_with_hooks_can_be_written_again(tmp_path: Path) -> None:
    """What is read are plain tensors, whatever else the file says of them."""
    content = {"threshs": WithHooks(3), "shared_fpr": WithHooks(3), "per_image_tprs": WithHooks(2, 3)}
    torch.save(content, tmp_path / "curves.pt")
    PIMOResult.load(tmp_path / "curves.pt").save(tmp_path / "again.pt")
    assert PIMOResult.load(tmp_path / "again.pt").per_image_tprs.equal(torch.zeros(2, 3))


def test_a_changed_bit_in_curves_is_noticed(tmp_path: Path) -> None:
    """Curves in whose file a single bit has changed are the same, or refused."""
    path, curves = tmp_path / "curves.pt", make_curves()
    curves.save(path)
    whole, num_refused = path.read_bytes(), 0
    numbers = whole.index(curves.thresholds.numpy().tobytes())
    folder_flag = whole.rindex(b"PK\1\2", 0, whole.rindex(b"data/0")) + 38  # says that an entry is a folder
    positions = [numbers, folder_flag, *np.random.default_rng(0).integers(0, len(whole), 200)]
    for number, position in enumerate(positions):
        changed = bytearray(whole)
        changed[position] ^= 1 << (4 if position == folder_flag else int(position) % 8)
        path.write_bytes(changed)
        try:
            loaded = PIMOResult.load(path)
        except ValueError:
            num_refused += 1
        else:
            assert number > 1
            torch.testing.assert_close(tuple(loaded), tuple(curves), rtol=0, atol=0, equal_nan=True)
    assert num_refused > 50


@pytest.mark.parametrize("length", [0, 10, 200])
def test_truncated_curves_are_refused(tmp_path: Path, length: int) -> None:
    """Half a file is a ValueError."""
    path = tmp_path / "curves.pt"
    make_curves().save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"could not read .*curves\.pt"):
        PIMOResult.load(path)


OTHER_PATHS = '{"aupimos": [0.5], "fpr_lower_bound": 1e-5, "fpr_upper_bound": 1e-4, "paths": ["a.png", "b.png"]}'


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"aupimos": ["x"]}', '{"aupimos": [0.5]}', OTHER_PATHS])
def test_a_foreign_file_is_refused(tmp_path: Path, text: str) -> None:
    """A file that is not one of AUPIMO scores raises a ValueError that names it."""
    path = tmp_path / "foreign.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"JSON file of AUPIMO scores, but could not read .*foreign\.json"):
        AUPIMOResult.load(path)


def test_a_file_that_is_no_text_is_refused_in_one_short_line(tmp_path: Path) -> None:
    """The error says that a picture is no text, without its bytes."""
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG" + bytes(10_000))
    with pytest.raises(ValueError, match=r"could not read .*picture\.png: UnicodeDecodeError: 'utf-8'") as error:
        AUPIMOResult.load(path)
    assert len(str(error.value).replace(str(path), "")) < 200


def test_loaded_scores_have_no_thresholds() -> None:
    """What a file does not hold is refused with the reason, not made up."""
    result = AUPIMOResult.load(next(BENCHMARK.glob("*/mvtec/*/aupimo/aupimos.json")))
    with pytest.raises(ValueError, match="loaded from a file"):
        result.threshold_at(1e-5)
    with pytest.raises(ValueError, match="loaded from a file"):
        result.pixel_aupimo(torch.rand(4, 4))
    with pytest.raises(ValueError, match="loaded from a file"):
        result.curves()
    with pytest.raises(ValueError, match="loaded from a file"):
        result.operating_point(threshold=1.0)


@pytest.mark.parametrize(("num_thresholds", "mode"), [(None, "exact"), (5000, "5000 thresholds")])
@pytest.mark.parametrize(("shared_fpr", "shared_by"), [("mean", "mean"), ("max", "maximum")])
def test_the_protocol_names_the_settings(
    num_thresholds: int | None, mode: str, shared_fpr: str, shared_by: str
) -> None:
    """The line to quote holds what makes a score comparable."""
    result = make_result(num_thresholds, shared_fpr)
    settings = f"{mode}, shared FPR 0.01 to 0.1 ({shared_by} of per-image FPRs)"
    assert result.protocol == f"AUPIMO, {settings}, aupimo-torchmetrics {__version__}"
    assert result.shared_fpr == shared_fpr


def test_chance_is_the_score_of_constant_maps() -> None:
    """A model that says the same of every pixel scores `chance`."""
    masks = torch.zeros(2, 10, 10)
    masks[1, :3] = 1
    metric = AUPIMO(fpr_bounds=(1e-2, 1e-1))
    metric.update(torch.zeros(masks.shape), masks)
    with pytest.warns(UserWarning, match="cannot be resolved"):
        result = metric.result()
    assert result.mean == pytest.approx(result.chance, abs=1e-15)  # the last bit of the mean
