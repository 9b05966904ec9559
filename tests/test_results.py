"""Results on disk and in words."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from aupimo_torchmetrics import AUPIMO, AUPIMOResult, PIMOResult, __version__
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


def test_saved_scores_come_back(tmp_path: Path) -> None:
    """Scores, NaN of normal images included, bounds, classes and paths survive a round trip to the last bit."""
    result = make_result()
    result.paths = [f"image_{i}.png" for i in range(len(result.aupimos))]
    result.save(tmp_path / "aupimos.json")
    loaded = AUPIMOResult.load(tmp_path / "aupimos.json")
    torch.testing.assert_close(loaded.aupimos, result.aupimos, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(loaded.image_classes, result.image_classes, rtol=0, atol=0)
    assert loaded.fpr_bounds == result.fpr_bounds
    assert loaded.threshold_bounds == result.threshold_bounds
    assert loaded.paths == result.paths
    assert loaded.mean == result.mean
    assert (loaded.num_thresholds, loaded.version) == (None, __version__)
    assert loaded.protocol == result.protocol


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
    result.paths = [object()]  # type: ignore[list-item]  # cannot be written
    with pytest.raises(TypeError, match="not JSON serializable"):
        result.save(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["aupimos.json", "aupimos.settings.json"]


def test_settings_are_those_of_the_scores_beside_them(tmp_path: Path) -> None:
    """Settings come back with their scores, are not taken for those of other scores, and may be missing."""
    path, settings = tmp_path / "aupimos.json", tmp_path / "aupimos.settings.json"
    result = make_result(5000)
    result.save(path)
    loaded = AUPIMOResult.load(path)
    assert (loaded.num_thresholds, loaded.num_points) == (5000, result.num_points)
    assert loaded.protocol == result.protocol
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")  # as another program would
    assert AUPIMOResult.load(path).num_thresholds == "unknown"
    result.save(path)
    settings.unlink()
    assert AUPIMOResult.load(path).num_thresholds == "unknown"
    settings.write_text('{"scores', encoding="utf-8")
    with pytest.raises(ValueError, match=r"aupimos\.settings\.json to hold the settings of .* remove it"):
        AUPIMOResult.load(path)


def test_equal_thresholds_are_saved_as_the_official_package_takes_them(tmp_path: Path) -> None:
    """The official loader refuses equal thresholds, so they are null in its file, and in the settings they are not."""
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
