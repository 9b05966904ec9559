"""Results on disk and in words."""

import functools
import json
import math
import sys
import warnings
from dataclasses import FrozenInstanceError, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from helpers import as_arrays, assert_same, make_batch, make_image_list, updated
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aupimo_torchmetrics import AUPIMO, AUPIMOResult, PIMOResult, __version__
from aupimo_torchmetrics._files import results as _result_files
from aupimo_torchmetrics.functional import pimo

BENCHMARK = Path(__file__).parent / "data" / "published" / "benchmark"
OFFICIAL: dict[str, Any] = {
    "shared_fpr_metric": "mean-per-image-fpr",
    "fpr_lower_bound": 1e-5,
    "fpr_upper_bound": 1e-4,
    "num_threshs": None,
    "thresh_lower_bound": 1.0,
    "thresh_upper_bound": 2.0,
    "aupimos": [0.5, math.nan],
}
"""A file of scores with exactly the keys that the official loader takes."""


@functools.cache
def make_result(num_thresholds: int | None = None) -> AUPIMOResult:
    """Score four normal and four anomalous images, with pixels enough that 5000 thresholds meet the bounds."""
    return updated(AUPIMO(num_thresholds, fpr_bounds=(1e-2, 1e-1)), [make_batch("NNNNAAAA", 0, (100, 100))]).result()


def an_official_result() -> AUPIMOResult:
    """Load one of the files that the metric's authors published."""
    return AUPIMOResult.load(next(BENCHMARK.glob("*/mvtec/*/aupimo/aupimos.json")))


def saved_and_loaded(result: AUPIMOResult, folder: Path) -> AUPIMOResult:
    """Save a result, and load it again."""
    result.save(folder / "aupimos.json")
    return AUPIMOResult.load(folder / "aupimos.json")


@pytest.mark.parametrize(("ids", "paths"), [(torch.arange(8, 0, -1), [*"abcdefgh"]), (None, None)])
def test_ids_that_were_set_come_back(tmp_path: Path, ids: Any, paths: list[str] | None) -> None:
    """Ids that were set in a result, or removed, are saved in place of those of the images, with paths and without."""
    before = saved_and_loaded(replace(make_result(), image_ids=torch.arange(8)), tmp_path)
    assert before.image_ids.tolist() == [*range(8)]
    loaded = saved_and_loaded(replace(before, image_ids=ids, paths=paths), tmp_path)
    assert loaded.image_ids is ids or loaded.image_ids.equal(ids)
    assert loaded.paths == paths
    assert loaded.threshold_at(0.05) == before.threshold_at(0.05)


WRONG_NUMBER = "Expected `{}` to hold one for each of 8 scores, but got 7"
UNSAVED: list[tuple[str, Any, Any, str]] = [
    ("paths", ["a.png"] * 7, ValueError, WRONG_NUMBER),
    *((name, torch.ones(7).long(), ValueError, WRONG_NUMBER) for name in ("image_ids", "image_classes", "mask_sizes")),
    ("paths", 8 * [object()], TypeError, "not JSON serializable"),
    ("warnings", (object(),), TypeError, "not JSON serializable"),
]


@pytest.mark.parametrize(("name", "value", "error", "message"), UNSAVED)
def test_what_cannot_be_saved_leaves_the_old_files(
    tmp_path: Path, name: str, value: Any, error: Any, message: str
) -> None:
    """A wrong number of names or ids is an error that names them; it leaves the files as they were, and no other."""
    path, result = tmp_path / "aupimos.json", make_result()
    result.save(path)
    before = path.read_bytes()
    with pytest.raises(error, match=message.format(name)):
        replace(result, **{name: value}).save(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["aupimos.json", "aupimos.safetensors"]
    assert_same_result(AUPIMOResult.load(path), result)


def test_all_published_files_load() -> None:
    """The files that the metric's authors published, of 13 models on 15 categories, give their scores and bounds."""
    files = sorted(BENCHMARK.glob("*/mvtec/*/aupimo/aupimos.json"))
    assert len(files) == 13 * 15
    for file in files:
        result = AUPIMOResult.load(file)
        content = json.loads(file.read_text(encoding="utf-8"))
        assert_same(result.aupimos, torch.tensor(content["aupimos"], dtype=torch.float64))
        assert result.fpr_bounds == (1e-5, 1e-4)
        assert result.threshold_bounds == (content["thresh_lower_bound"], content["thresh_upper_bound"])
        assert result.num_thresholds == "unknown"
        assert "unknown number of thresholds" in result.protocol
        assert "unknown software" in result.protocol
        assert result.image_classes.tolist() == ["/good/" not in path for path in result.paths]


@functools.cache
def make_awkward_results() -> dict[str, AUPIMOResult]:
    """Results of all kinds: exact, sampled, by the maximum, with ids and texts, undefined, pruned, of ties."""
    maps, masks = make_batch("NNNAAA", 1, (30, 40))
    texts = ["b", "a/1.png", "日本", "ä", "c", "a/0.png"]
    make = functools.partial(AUPIMO, fpr_bounds=(1e-2, 1e-1))
    updates: dict[str, tuple[AUPIMO, Any, Any, Any]] = {
        "exact": (make(), maps, masks, None),
        "sampled": (make(3000), maps, masks, None),
        "two thresholds": (make(2), maps, masks, None),
        "max": (make(shared_fpr="max"), maps, masks, None),
        "ids": (make(), maps, masks, [4, 1, 9, 0, 2, 1]),
        "texts": (make(), maps, masks, texts),
        "ties": (make(), maps.round(), masks, None),
        "constant": (make(), maps * 0, masks, None),
        "no normal image": (make(), maps[3:], masks[3:], None),
        "no anomalous image": (make(), maps[:3], masks[:3], None),
        "no image": (make(), maps[:0], masks[:0], None),
        "pruned": (make(fpr_bounds=(1e-3, 1e-2), normal_buffer=10), maps, masks, None),
        "infinite": (make(50), maps.masked_fill(maps > 2, torch.inf), masks, None),
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
    for name in ("aupimos", "image_classes", "image_ids", "mask_sizes", "mean", "threshold_bounds"):
        assert_same(getattr(actual, name), getattr(expected, name))
    for name in ("fpr_bounds", "num_thresholds", "num_points", "shared_fpr", "paths", "version", "warnings"):
        assert getattr(actual, name) == getattr(expected, name), name
    lower, upper = actual.fpr_bounds
    asked: list[dict[str, float]] = [{"fpr": fpr} for fpr in (lower / 10, (lower + upper) / 2, upper)]
    asked.append({"threshold": 5.0})
    points, expected_points = ([each.operating_point(**one) for one in asked] for each in (actual, expected))
    assert [point.warnings for point in points] == [point.warnings for point in expected_points]
    assert_same([tuple(point)[:-1] for point in points], [tuple(point)[:-1] for point in expected_points])
    for ask in (str, repr, lambda result: (result.protocol, result.chance)):
        assert ask(actual) == ask(expected)
    for ask in (
        lambda result: result.pixel_aupimo(torch.linspace(-3, 5, 1000)),
        lambda result: tuple(result.curves()),
        lambda result: [result.threshold_at(one["fpr"]) for one in asked[:-1]],
    ):
        assert_same(ask(actual), ask(expected))


@pytest.mark.parametrize("name", make_awkward_results())
def test_every_member_comes_back(tmp_path: Path, name: str) -> None:
    """A result of any kind, saved and loaded by the path of either file, answers to the last bit as before.

    The JSON file has the keys that the official loader takes, and null for what that loader refuses.
    """
    result = make_awkward_results()[name]
    for suffix, kind in (("json", str), ("safetensors", Path)):
        result.save(kind(tmp_path / f"aupimos.{suffix}"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["aupimos.json", "aupimos.safetensors"]
        loaded = AUPIMOResult.load(kind(tmp_path / f"aupimos.{suffix}"))
        assert_same_result(loaded, result)
    content = json.loads((tmp_path / "aupimos.json").read_text(encoding="utf-8"))
    assert set(content) - {"paths"} == set(OFFICIAL)
    assert content["shared_fpr_metric"] == f"{result.shared_fpr}-per-image-fpr"
    are_null = [content[f"thresh_{end}_bound"] is None for end in ("lower", "upper")]
    undefined_or_equal = {"two thresholds", "constant", "infinite", "no normal image", "no image"}
    assert are_null == [name in undefined_or_equal] * 2
    assert content["num_threshs"] == (None if name == "two thresholds" else result.num_points)  # those in range
    (tmp_path / "again").mkdir()
    assert_same_result(saved_and_loaded(loaded, tmp_path / "again"), result)
    assert (tmp_path / "again/aupimos.json").read_bytes() == (tmp_path / "aupimos.json").read_bytes()
    # the file of tensors gives all back without the JSON file, wherever it is moved
    (tmp_path / "aupimos.json").unlink()
    (tmp_path / "aupimos.safetensors").rename(tmp_path / "moved.safetensors")
    assert_same_result(AUPIMOResult.load(tmp_path / "moved.safetensors"), result)


def test_settings_are_in_the_protocol() -> None:
    """The line to quote holds what makes a score comparable."""
    found = [make_awkward_results()[name].protocol for name in ("exact", "sampled", "max")]
    modes = [("exact", "mean"), ("3000 thresholds", "mean"), ("exact", "maximum")]
    settings = [f"{mode}, shared FPR 0.01 to 0.1 ({shared_by} of per-image FPRs)" for mode, shared_by in modes]
    assert found == [f"AUPIMO, {each}, aupimo-torchmetrics {__version__}" for each in settings]


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
    for result in (made, an_official_result()):
        result.save(tmp_path / "aupimos.json")
        loaded = AUPIMOResult.load(tmp_path / f"aupimos.{suffix}")
        for name in ("aupimos", "image_ids", "image_classes", "mask_sizes", "threshold_bounds"):
            assert_same(getattr(loaded, name), getattr(result, name))
        for name in ("protocol", "warnings", "paths", "num_thresholds", "num_points"):
            assert getattr(loaded, name) == getattr(result, name), name
        with pytest.raises(ValueError, match="loaded from a file"):
            loaded.threshold_at(1e-5)


def with_changed_bits(whole: bytes, number: int) -> list[bytes]:
    """Copies of a file, in each of which a single bit has changed."""
    positions = np.random.default_rng(0).integers(0, len(whole), number).tolist()
    return [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in positions]


def test_damaged_details_are_refused_and_the_scores_can_be_read_without_them(tmp_path: Path) -> None:
    """The error names the file that is damaged, be it by a single bit, and its advice gives the scores."""
    path, details = tmp_path / "aupimos.json", tmp_path / "aupimos.safetensors"
    result = make_result()
    result.save(path)
    whole = details.read_bytes()
    damaged = [b"", whole[:5], whole[:100], whole[:-7], whole.replace(b"num_kept", b"num_lost"), bytes(500)]
    for content in (*damaged, *with_changed_bits(whole, 60)):
        details.write_bytes(content)
        for each in (path, details):
            with pytest.raises(ValueError, match=r"aupimos\.safetensors to hold the details of .* remove it"):
                AUPIMOResult.load(each)
    details.unlink()
    assert_same(AUPIMOResult.load(path).aupimos, result.aupimos)
    with pytest.raises(FileNotFoundError):
        AUPIMOResult.load(details)


def test_names_that_end_otherwise(tmp_path: Path) -> None:
    """A file that is written ends as its format says; files under other names, of earlier versions, are still read."""
    for result, ends, names in (
        (make_result(), r"`\.json` or `\.safetensors`", ("scores", "x.txt", "model_v1.0", "curves.pt", "json")),
        (make_curves(), r"`\.pt` or `\.pth`", ("curves", "x.json", "curves.pt.txt")),
    ):
        for name in names:
            with pytest.raises(ValueError, match=rf"to end in {ends}, but got .*{name}"):
                result.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    results = make_awkward_results()
    for name, kind in {"model_v1.0": "exact", "model_v1.1": "ties"}.items():
        results[kind].save(tmp_path / "m.json")
        (tmp_path / "m.json").rename(tmp_path / name)
        (tmp_path / "m.safetensors").rename(tmp_path / f"{name}.safetensors")
        assert_same_result(AUPIMOResult.load(tmp_path / name), results[kind])


BAD_DETAILS: dict[str, tuple[str, Any, str]] = {
    "another format": ("format", "other", "its format is .*other"),
    "dtype": ("num_kept", torch.zeros(8), "`num_kept` is of dtype torch.float32"),
    "shape": ("floor", torch.zeros(1), r"`floor` is of dtype torch.float32 and shape \(1,\)"),
    "counts": ("num_kept", torch.full((8,), 2**62), "impossible size"),
    "negative counts": ("num_kept", torch.tensor([-1, 1] * 4), "`num_kept` does not fit"),
    "number of images": ("image_ids", torch.zeros(7).long(), "do not fit together"),
    "number of scores": ("aupimos", torch.zeros(3).double(), "3 scores of 8 images"),
    "scores": ("aupimos", torch.full((8,), 2.0).double(), r"not scores in \[0, 1\]"),
    "NaN": ("floor", torch.tensor(math.nan), "NaN among the scores"),
    "sizes": ("num_pixels", torch.zeros(8).long(), "impossible size"),
    "ids": ("image_ids", torch.full((8,), -2), "impossible size or id"),
    "bounds": ("fpr_bounds", [0.5, 0.1], "0 < lower < upper"),
    "thresholds": ("threshold_bounds", ["a", "b"], "could not convert"),
    "too many thresholds": ("num_thresholds", 10**12, "at most 16777216"),
    "no number of thresholds": ("num_thresholds", "many", "None or an integer"),
    "number of points": ("num_points", 1.5, "`num_points` is of type float"),
    "version": ("version", 3, "`version` is of type int"),
    "shared FPR": ("shared_fpr", "median", "'mean' or 'max'"),
    "paths": ("paths", ["a"], "1 `paths` for 8"),
    "warnings": ("warnings", "all well", "`warnings` are not texts"),
}


@pytest.mark.parametrize("kind", BAD_DETAILS)
def test_details_that_do_not_fit_together_are_refused(tmp_path: Path, kind: str) -> None:
    """A well-formed file that no result has written is a ValueError with the reason."""
    path = tmp_path / "aupimos.safetensors"
    make_result().save(path)
    name, value, message = BAD_DETAILS[kind]
    with safe_open(path, framework="pt") as file:
        tensors, metadata = load_file(path), file.metadata()
    if isinstance(value, torch.Tensor):
        tensors[name] = value
    else:
        metadata[name] = json.dumps(value)
    metadata["sha256"] = _result_files.checksum(tensors, metadata)
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=f"could not read it: .*{message}"):
        AUPIMOResult.load(path)


def test_a_result_is_frozen() -> None:
    """What a metric has cached cannot be changed by accident."""
    with pytest.raises(FrozenInstanceError):
        make_result().paths = ["a"]  # type: ignore[misc]


def test_warnings_are_those_that_were_warned_of() -> None:
    """The result holds the texts of all warnings, which are given once, when it is computed."""
    masks = torch.zeros(3, 10, 10, dtype=torch.bool)
    masks[2] = True
    metric = updated(AUPIMO(), [(torch.rand(3, 10, 10), masks)])
    with pytest.warns(UserWarning, match="cannot be resolved") as caught:
        result = metric.result()
    assert result.warnings == tuple(str(warning.message) for warning in caught)
    metric.result(), metric.compute(), result.curves(), metric.curves()  # a warning is an error here
    silent = {
        name for name, each in make_awkward_results().items() if all("few images" in text for text in each.warnings)
    }
    assert silent == {"exact", "sampled", "max", "texts", "ties", "pruned"}


@pytest.mark.parametrize(("shared_fpr", "num_thresholds"), [("mean", 3000), ("max", None)])
def test_operating_points_are_what_counting_says(shared_fpr: Any, num_thresholds: int | None) -> None:
    """Shared FPR, TPRs and alarms of a threshold are those of the maps, for images of several sizes."""
    maps, masks = make_image_list(5, [(30, 40), (20, 25), (41, 17), (30, 40), (22, 31)], (1, 4))
    images = as_arrays(maps), as_arrays(masks)
    metric = updated(AUPIMO(num_thresholds, (1e-2, 1e-1), shared_fpr=shared_fpr), [(maps, masks)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sampling
        result = metric.result()
    thresholds = (-10.0, 0.3, float(maps[0].max()), math.inf)
    for name, value in (*product(["fpr"], (0.01, 0.05, 0.1)), *product(["threshold"], thresholds)):
        point = result.operating_point(**{name: value})
        shared = reference.shared_fpr(*images, point.threshold, shared_fpr)
        assert point.shared_fpr == pytest.approx(shared, abs=1e-15)  # one sum in another order
        tprs = [reference.tpr(images[0][index], images[1][index], point.threshold) for index in (1, 4)]
        assert point.per_image_tprs[[1, 4]].tolist() == pytest.approx(tprs, abs=1e-15)
        assert point.per_image_tprs[[0, 2, 3]].isnan().all()
        alarms = [bool((images[0][index] >= point.threshold).any()) for index in (0, 2, 3)]
        assert point.share_of_normal_images_with_alarm == pytest.approx(sum(alarms) / 3)
        if name == "threshold":
            assert point.threshold == value
        else:
            assert point.threshold == result.threshold_at(value)
            assert num_thresholds or point.shared_fpr <= value + 1e-15


LOADED, ONE_OF = "loaded from a file", "exactly one of `fpr` and `threshold`"
UNANSWERED: list[tuple[Any, str]] = [
    (lambda result, _: result.operating_point(), ONE_OF),
    (lambda result, _: result.operating_point(fpr=0.05, threshold=1.0), ONE_OF),
    (lambda result, _: result.operating_point(threshold=math.nan), "`threshold` to be a number, but got NaN"),
    (lambda result, _: result.operating_point(fpr=0.0), r"`fpr` to be in \(0, 0\.01\], but got 0\.0"),
    (lambda _, official: official.threshold_at(1e-5), LOADED),
    (lambda _, official: official.pixel_aupimo(torch.rand(4, 4)), LOADED),
    (lambda _, official: official.curves(), LOADED),
    (lambda _, official: official.operating_point(threshold=1.0), LOADED),
]


@pytest.mark.parametrize(("ask", "message"), UNANSWERED)
def test_what_is_not_known_is_not_made_up(ask: Any, message: str) -> None:
    """A point needs one known threshold, and what an official file does not hold is refused with the reason."""
    with pytest.raises(ValueError, match=message):
        ask(make_awkward_results()["pruned"], an_official_result())


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
    assert table["mask_pixels"].tolist() == [64, 0, 64, 0, 0]
    assert table["is_anomalous"].tolist() == [True, False, True, False, False]
    assert table["path"].isna().all()
    upper, lower = (results["ids"].operating_point(threshold=each) for each in results["ids"].threshold_bounds)
    expected = (results["ids"].aupimos, lower.per_image_tprs, upper.per_image_tprs)
    assert np.array_equal(table[columns[-3:]].to_numpy(), torch.stack(expected, 1).numpy(), equal_nan=True)
    assert results["texts"].to_dataframe()["path"].tolist() == results["texts"].paths
    assert results["texts"].to_dataframe()["image_id"].isna().all()
    official = an_official_result().to_dataframe()
    assert official[["tpr_at_upper", "mask_pixels"]].isna().all(axis=None)
    assert isinstance(official, pd.DataFrame)
    assert len(results["no image"].to_dataframe()) == 0


def test_the_table_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas the error names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"expects `pandas` to be installed.*aupimo-torchmetrics\[table\]"):
        make_result().to_dataframe()


def test_a_printed_result_is_a_few_lines() -> None:
    """Printed, a result is one block of lines that can be read, without tensors; in a list it is one line."""
    for result in make_awkward_results().values():
        lines = str(result).splitlines()
        assert len(lines) <= 4 + len(result.warnings)
        assert lines[0].startswith("AUPIMO ")
        assert result.protocol in lines
        assert "tensor" not in str(result) + repr(result)
        assert len(repr(result).splitlines()) == 1
        assert all(text in str(result) for text in result.warnings)


def changed(**changes: Any) -> bytes:
    """A file of scores in which something is changed."""
    return json.dumps({**OFFICIAL, **changes}).encode()


FOREIGN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", ""),
    "half": (b"{", ""),
    "list": (b"[]", ""),
    "no scores": (b"{}", ""),
    "text": (b'{"aupimos": ["x"]}', ""),
    "no bounds": (b'{"aupimos": [0.5]}', ""),
    "picture": (b"\x89PNG" + bytes(10_000), ": UnicodeDecodeError: 'utf-8'"),
    "score": (changed(aupimos=[0.5, 1.5]), r"not scores in \[0, 1\]"),
    "nested": (changed(aupimos=[[0.5, 0.5]]), r"not scores in \[0, 1\]"),
    "paths": (changed(paths=["a.png"]), "there are 1 `paths` for 2 `aupimos`"),
    "path": (changed(paths=["a.png", 1]), "`paths` are not texts"),
    "bounds": (changed(fpr_lower_bound=0.1), "0 < lower < upper <= 1"),
    "thresholds": (changed(thresh_lower_bound=3.0), "`thresh_lower_bound` 3 is above `thresh_upper_bound` 2"),
    "shared FPR": (changed(shared_fpr_metric="a"), "`shared_fpr_metric` is 'a', not mean-per-image-fpr or max"),
    "scores that are no list": (changed(aupimos={"a": 5}), ""),
    "a number that is none": (changed(num_threshs={"a": 5}), ""),
    "nested without end": (b"[" * 100_000, ""),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_refused_in_one_short_line(tmp_path: Path, kind: str) -> None:
    """A file that holds no scores, or whose parts do not fit together, raises a ValueError with its name and fault."""
    content, message = FOREIGN[kind]
    path = tmp_path / "foreign.json"
    path.write_bytes(changed())
    assert AUPIMOResult.load(path).mean == 0.5
    path.write_bytes(content)
    told = rf"JSON file of AUPIMO scores, but could not read .*foreign\.json.*{message}"
    with pytest.raises(ValueError, match=told) as error:
        AUPIMOResult.load(path)
    assert len(str(error.value).replace(str(path), "")) < (240 if kind == "bounds" else 200)


def make_curves() -> PIMOResult:
    """Return curves of a normal and an anomalous image."""
    return pimo(*make_batch("NA", 0, (10, 10)), 5)


def test_saved_curves_come_back(tmp_path: Path) -> None:
    """Curves survive a round trip, as tensors or as arrays, under the names of the official package."""
    curves = make_curves()
    for saved in (curves, PIMOResult(*(part.numpy() for part in curves))):
        saved.save(tmp_path / "curves.pt")
        torch.testing.assert_close(tuple(PIMOResult.load(tmp_path / "curves.pt")), tuple(curves), equal_nan=True)
    for shared_fpr in ("mean", "max"):
        curves.save(tmp_path / "curves.pt", shared_fpr)
        content = torch.load(tmp_path / "curves.pt", weights_only=True)
        assert set(content) == {"shared_fpr_metric", "threshs", "shared_fpr", "per_image_tprs"}
        assert content["shared_fpr_metric"] == f"{shared_fpr}-per-image-fpr"
    with pytest.raises(ValueError, match="`shared_fpr` to be 'mean' or 'max'"):
        curves.save(tmp_path / "curves.pt", "median")
    assert [file.name for file in tmp_path.iterdir()] == ["curves.pt"]


CURVE_FAULTS: dict[str, tuple[Any, str]] = {
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
    """A file without curves raises a ValueError with its name."""
    content, message = CURVE_FAULTS[fault]
    torch.save(content, tmp_path / "curves.pt")
    with pytest.raises(ValueError, match=message) as caught:
        PIMOResult.load(tmp_path / "curves.pt")
    assert "curves.pt" in str(caught.value)


def test_a_changed_bit_in_curves_is_noticed(tmp_path: Path) -> None:
    """Curves in whose file a single bit has changed are the same, or refused, and half a file is refused."""
    path, curves = tmp_path / "curves.pt", make_curves()
    curves.save(path)
    whole, num_refused = path.read_bytes(), 0
    folder_flag = whole.rindex(b"PK\1\2", 0, whole.rindex(b"data/0")) + 38  # says that an entry is a folder
    refused = [whole[:length] for length in (0, 10, 200)]
    for position, bit in ((whole.index(curves.thresholds.numpy().tobytes()), 1), (folder_flag, 16)):
        refused.append(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
    for content in (*refused, *with_changed_bits(whole, 200)):
        path.write_bytes(content)
        try:
            loaded = PIMOResult.load(path)
        except ValueError as error:
            num_refused += 1
            assert "curves.pt" in str(error)  # noqa: PT017
        else:
            assert content not in refused
            assert_same(tuple(loaded), tuple(curves))
    assert num_refused > 50
