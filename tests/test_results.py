"""Results on disk and in words."""

import json
import math
from pathlib import Path

import pytest
import torch

from aupimo_torchmetrics import AUPIMO, AUPIMOResult, __version__

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


def make_result(num_thresholds: int | None = None) -> AUPIMOResult:
    """Score four normal and four anomalous images, with pixels enough that 5000 thresholds meet the bounds."""
    masks = torch.zeros(8, 100, 100, dtype=torch.bool)
    masks[4:, 40:60, 40:60] = True
    maps = torch.randn(masks.shape, generator=torch.Generator().manual_seed(0)) + 2 * masks
    metric = AUPIMO(num_thresholds, fpr_bounds=(1e-2, 1e-1))
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
    assert [file.name for file in tmp_path.iterdir()] == ["aupimos.json"]


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
def test_the_protocol_names_the_settings(num_thresholds: int | None, mode: str) -> None:
    """The line to quote holds what makes a score comparable."""
    expected = f"AUPIMO, {mode}, shared FPR 0.01 to 0.1 (mean of per-image FPRs), aupimo-torchmetrics {__version__}"
    assert make_result(num_thresholds).protocol == expected


def test_chance_is_the_score_of_constant_maps() -> None:
    """A model that says the same of every pixel scores `chance`."""
    masks = torch.zeros(2, 10, 10)
    masks[1, :3] = 1
    metric = AUPIMO(fpr_bounds=(1e-2, 1e-1))
    metric.update(torch.zeros(masks.shape), masks)
    with pytest.warns(UserWarning, match="cannot be resolved"):
        result = metric.result()
    assert result.mean == pytest.approx(result.chance, abs=1e-15)  # the last bit of the mean
