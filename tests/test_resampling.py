"""Intervals and comparisons by resampled images are those of the metrics computed anew from the images of each draw."""

import importlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from data_sets import BOUNDS, make_data, write_rows
from helpers import updated
from numpy.typing import NDArray
from safetensors.torch import safe_open, save_file
from scipy import stats

import aupimo_torchmetrics._metric_counts as metric_counts
from aupimo_torchmetrics import AUPIMO, AUPIMOResult
from aupimo_torchmetrics._engine.binning import bin_edges
from aupimo_torchmetrics._engine.resampling import Draws
from aupimo_torchmetrics._files import counts as count_files
from aupimo_torchmetrics._files.counts import read_counts, write_counts
from aupimo_torchmetrics._files.results import checksum
from aupimo_torchmetrics.compare import BadDataError, compare_paths
from aupimo_torchmetrics.evaluate import evaluate
from aupimo_torchmetrics.statistics import bootstrap_interval, compare_models

PIXEL_METRICS = ("auroc", "aupr", "f1_max", "aupro")
IMAGE_METRICS = ("image_auroc", "image_aupr", "image_f1_max")
ALL = (*PIXEL_METRICS, *IMAGE_METRICS)
FPR_LIMIT = 0.3
Arrays = list[NDArray[Any]]


def metric_of(maps: Arrays, masks: Arrays, **settings: Any) -> AUPIMO:
    """AUPIMO of some images."""
    batch = list(map(torch.from_numpy, maps)), list(map(torch.from_numpy, masks))
    return updated(AUPIMO(fpr_bounds=BOUNDS, **settings), [batch])


def evaluated(folder: Path, maps: Arrays, masks: Arrays, groups: list[str] | None = None, **settings: Any) -> Any:
    """Evaluate images of a table, whose files are written to a folder."""
    table = write_rows(folder, maps, masks, **({"group": groups} if groups else {}))
    return evaluate(table=table, fpr_bounds=BOUNDS, fpr_limit=FPR_LIMIT, **settings)


def keep(evaluation: Any, folder: Path) -> Path:
    """Write what `Evaluation.save` writes for comparisons, without pictures."""
    (scores,) = evaluation.categories
    scores.result.save(folder / "aupimo/aupimos.json")
    write_counts(folder / "aupimo/counts.safetensors", evaluation.counted(scores))
    return folder


def saved(folder: Path, maps: Arrays, masks: Arrays, **settings: Any) -> Path:
    """Evaluate images, and write what comparisons need."""
    return keep(evaluated(folder / "in", maps, masks, **settings), folder)


def drawn_images(draws: Draws) -> list[list[int]]:
    """Indices of the images of each draw, each as often as it was drawn."""
    weights = torch.cat(list(draws.weights())).long()
    return [torch.arange(len(each)).repeat_interleave(each).tolist() for each in weights]


def of_draws(maps: Arrays, masks: Arrays, draws: Draws) -> list[dict[str, float]]:
    """Every metric of the images of each draw, by the definitions."""
    found = []
    for indices in drawn_images(draws):
        drawn = [maps[index] for index in indices], [masks[index] for index in indices]
        aupimo = float(np.nanmean(reference.aupimo(*drawn, BOUNDS)))
        found.append({"aupimo": aupimo, **reference.all_metrics(*drawn, FPR_LIMIT)})
    return found


def counts_of(folder: Path, maps: Arrays, masks: Arrays) -> dict[str, metric_counts.MetricCounts]:
    """Counts of every metric, through the files of an evaluation."""
    saved(folder, maps, masks, metrics=ALL)
    counted = read_counts(folder / "aupimo/counts.safetensors")
    found = {name: metric_counts.counts_of_metric(counted, name) for name in ALL}
    aupimo = metric_counts.counts_of_result(AUPIMOResult.load(folder / "aupimo/aupimos.json"))
    return {"aupimo": aupimo, **found}  # type: ignore[dict-item]


@pytest.mark.parametrize(("digits", "size"), [(1, (14, 17)), (6, (20, 30))])
def test_metrics_of_resamples_are_those_of_the_images_that_were_drawn(
    tmp_path: Path, digits: int, size: tuple[int, int]
) -> None:
    """With few distinct scores they are so to rounding; else they are near, and within bounds that are certain."""
    maps, masks = make_data(5, 5, digits, size=size)
    counts = counts_of(tmp_path, maps, masks)
    draws = Draws(counts["aupimo"].units, 4, 1)
    expected = of_draws(maps, masks, draws)
    for name, each in counts.items():
        exact = np.array([values[name] for values in expected])
        values, lowest, highest = (part.numpy() for part in (each.resampled(draws), *each.bounds(draws)))
        assert (lowest <= exact + 1e-9).all(), name
        assert (exact <= highest + 1e-9).all(), name
        # Of 1,000 bins, pixels that share one are tied: a small part of what the images themselves vary.
        np.testing.assert_allclose(values, exact, atol=1e-9 if digits == 1 else 0.05 * exact.std() + 1e-9, err_msg=name)
        assert (highest - lowest).max() <= (1e-9 if digits == 1 else 0.3 * exact.std() + 1e-9), name


SIZES = [("max", [(20, 24)] * 12), ("mean", [(20, 24), (7, 11), (30, 18)] * 4)]


@pytest.mark.parametrize(("shared_fpr", "sizes"), SIZES)
def test_interval_of_aupimo_is_that_of_images_drawn_anew(shared_fpr: Any, sizes: list[tuple[int, int]]) -> None:
    """Images of all sizes, and either shared FPR: the values of resamples are those of the metric on these images."""
    parts = [make_data(1, 1, 6, seed, size) for seed, size in enumerate(sizes)]
    maps = [maps[is_anomalous] for is_anomalous in (0, 1) for maps, _ in parts]
    masks = [masks[is_anomalous] for is_anomalous in (0, 1) for _, masks in parts]
    counts = metric_counts.counts_of_result(metric_of(maps, masks, shared_fpr=shared_fpr).result())
    draws, exact = Draws(counts.units, 40, 2), []
    for drawn in drawn_images(draws):
        of_drawn = metric_of([maps[index] for index in drawn], [masks[index] for index in drawn], shared_fpr=shared_fpr)
        exact.append(of_drawn.result().mean)
    np.testing.assert_allclose(counts.resampled(draws), exact, atol=0.05 * np.std(exact))


def test_an_interval_is_the_expanded_percentile_interval() -> None:
    """Its ends are quantiles of the resampled means at `Phi(sqrt(n / (n - 1)) t)`; one seed gives one interval."""
    result = metric_of(*make_data(9, 9, 6)).result()
    counts = metric_counts.counts_of_result(result)
    values = counts.resampled(Draws(counts.units, 500, 3)).numpy()
    tail = stats.norm.cdf(np.sqrt(9 / 8) * stats.t.ppf(0.05, 8))
    expected = np.quantile(values, [tail, 1 - tail])
    np.testing.assert_allclose(bootstrap_interval(result, 0.9, 500, 3), expected, atol=1e-4)
    assert bootstrap_interval(result) == bootstrap_interval(result)
    assert bootstrap_interval(result, seed=1) != bootstrap_interval(result, seed=2)
    assert expected[0] < result.mean < expected[1]


def test_normal_images_widen_the_interval() -> None:
    """Where thresholds vary, too, the interval is wider than that of scores for given thresholds."""
    result = metric_of(*make_data(20, 20, 6)).result()
    scores_only = AUPIMOResult(result.aupimos, result.fpr_bounds, result.threshold_bounds)
    (low, high), (narrow_low, narrow_high) = map(bootstrap_interval, (result, scores_only))
    assert high - low > 1.05 * (narrow_high - narrow_low)


def test_groups_are_drawn_together() -> None:
    """Two photographs of each part are one draw: the interval is that of the parts, however often each is taken."""
    maps, masks = make_data(10, 10, 6)
    once, twice = metric_of(maps, masks).result(), metric_of(maps * 2, masks * 2).result()
    parts = [f"part {index}" for index in range(20)]
    expected = bootstrap_interval(once)
    assert bootstrap_interval(twice, groups=parts * 2) == pytest.approx(expected, abs=1e-3)  # of other bins
    low, high = bootstrap_interval(twice)
    assert high - low < 0.85 * (expected[1] - expected[0])
    with pytest.raises(ValueError, match="`groups` to name one for each of 40 images, but got 20"):
        bootstrap_interval(twice, groups=parts)


def test_a_resample_whose_scores_were_not_kept_is_unknown() -> None:
    """It is no low score: where the kept scores of some resamples do not reach the upper bound, an end is NaN."""
    maps, masks = make_data(6, 6, 6)
    for index in range(5):
        maps[index] -= 100  # all false positives are of one image, which some resamples lack
    batches = [(torch.from_numpy(maps[index])[None], torch.from_numpy(masks[index])[None]) for index in range(12)]
    small = updated(AUPIMO(fpr_bounds=(1e-3, 1e-2), normal_buffer=100), batches).result()
    counts = metric_counts.counts_of_result(small)
    draws = Draws(counts.units, 200, 0)
    is_drawn = torch.cat(list(draws.weights()))[:, 5] > 0
    values = counts.resampled(draws)
    assert values.isfinite().equal(is_drawn)
    assert math.isnan(bootstrap_interval(small)[0])


@pytest.mark.filterwarnings("ignore:AUPIMO is undefined")
@pytest.mark.parametrize("chosen", [range(6, 12), range(2, 12), range(10)])
def test_what_cannot_be_resampled_has_no_interval(chosen: range) -> None:
    """Of fewer than five images of a class nothing is known, and no model is better; of five it is."""
    maps, masks = make_data(6, 6, 6)
    few = metric_of([maps[index] for index in chosen], [masks[index] for index in chosen]).result()
    assert all(map(math.isnan, bootstrap_interval(few)))
    if few.mean >= 0:
        assert compare_models({"a": few, "b": few}, "resampled").confidence["a", "b"] == 0
    assert not any(map(math.isnan, bootstrap_interval(metric_of(maps[1:-1], masks[1:-1]).result())))


def test_a_difference_is_told_as_its_interval_tells_it() -> None:
    """The confidence exceeds 97.5 % just where the 95 % interval of the difference lies above 0."""
    maps, masks = make_data(15, 15, 6)
    random, found = np.random.default_rng(0), []
    results = {"old": metric_of(maps, masks).result()}
    for gain in np.linspace(0, 1.2, 5):
        new = [
            scores + (gain * mask + 0.5 * random.normal(size=scores.shape)).astype(np.float32)
            for scores, mask in zip(maps, masks, strict=True)
        ]
        comparison = compare_models({**results, "new": metric_of(new, masks).result()}, "resampled")
        difference, low, high = comparison.differences["new", "old"]
        assert low < high
        assert difference == pytest.approx(comparison.means["new"] - comparison.means["old"])
        if abs(comparison.confidence["new", "old"] - 0.975) > 0.003:  # the p-value counts one more draw
            found.append(low > 0)
            assert (comparison.confidence["new", "old"] > 0.975) == (low > 0)
        assert comparison.order == (("new", "old") if difference > 0 else ("old", "new"))
    assert {*found} == {True, False}


def test_models_that_are_equal_are_not_told_apart() -> None:
    """Whatever the alternative, the confidence is 0, and the interval of the difference is 0."""
    maps, masks = make_data(5, 5, 6)
    results = {name: metric_of(maps, masks).result() for name in "ab"}
    for alternative in ("greater", "less", "two-sided"):
        comparison = compare_models(results, "resampled", alternative)
        assert {*comparison.confidence.values()} == {0.0}
        assert comparison.differences["a", "b"] == pytest.approx((0, 0, 0), abs=1e-12)


def test_the_order_of_images_does_not_matter() -> None:
    """Images of the second model are put in the order of the first, by their names."""
    maps, masks = make_data(8, 8, 6)
    others, order = [each + np.float32(0.2) * each**2 for each in maps], np.random.default_rng(0).permutation(16)
    first, second, shuffled = (
        replace(
            metric_of([scores[index] for index in places], [masks[index] for index in places]).result(),
            paths=[f"{index}.png" for index in places],
        )
        for scores, places in ((maps, range(16)), (others, range(16)), (others, order))
    )
    pairs = [{"a": first, "b": other} for other in (second, shuffled)]
    assert len({str(compare_models(pair, "resampled")) for pair in pairs}) == 1


def test_results_that_know_scores_only_cannot_be_resampled() -> None:
    """The error names the model, and the tests that are possible."""
    result = metric_of(*make_data(4, 4, 6)).result()
    scores = AUPIMOResult(result.aupimos, result.fpr_bounds, result.threshold_bounds)
    with pytest.raises(BadDataError, match="'official' holds per-image scores only"):
        compare_models({"ours": result, "official": scores}, "resampled")
    models = {"ours": result, "again": result}
    with pytest.raises(ValueError, match="`groups` to name one for each image, but got 1"):
        compare_models(models, "resampled", groups=["a"])
    with pytest.raises(ValueError, match='`test="resampled"` with `groups`'):
        compare_models(models, groups=["a"] * 8)
    with pytest.raises(ValueError, match="`num_resamples` to be at least 1, but got 0"):
        compare_models(models, "resampled", num_resamples=0)


def test_evaluate_prints_and_writes_intervals(tmp_path: Path, printed: Any) -> None:
    """Each metric has one that holds it, in the table, in the library and in the file, and a text says what it is."""
    maps, masks = make_data(6, 6, 6)
    evaluation = evaluated(tmp_path / "in", maps, masks, metrics=ALL, intervals=True)
    (scores,) = evaluation.categories
    assert list(scores.intervals) == ["aupimo", *ALL]
    for name, interval in scores.intervals.items():
        assert interval.lower <= scores.values()[name] <= interval.upper
        assert interval.max_error < 0.02
    assert scores.intervals["aupimo"][:2] == bootstrap_interval(scores.result)
    argv = [
        "--table",
        tmp_path / "in/table.csv",
        "--out",
        tmp_path / "out",
        "--metrics",
        *ALL[:3],
        "--metrics",
        *ALL[3:],
    ]
    out = printed("evaluate --intervals --report --fpr-bounds 0.01 0.1", *argv)
    assert f"{scores.intervals['aupro'].lower:.4f} to {scores.intervals['aupro'].upper:.4f}" in out
    assert "1,000 resamples, each of 6 normal and 6 anomalous images" in out
    assert "With fewer than 50 of a class they are too narrow" in out
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["categories"][0]["intervals"]["auroc"] == scores.intervals["auroc"]._asdict()
    lower = f"{scores.intervals['aupr'].lower:.4f}"
    assert f"{lower}\N{NO-BREAK SPACE}to" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_the_mean_over_categories_has_an_interval(tmp_path: Path) -> None:
    """It is narrower than those of the categories, which vary by themselves; a category without a score has none."""
    data: list[tuple[Any, Any, str]] = []
    for category in "abc":
        images = zip(*make_data(8, 8, 6, seed=ord(category)), [category] * 16, strict=True)
        data += [image for image in images if category != "c" or image[1].any()]
    maps, masks, categories = zip(*data, strict=True)
    evaluation = evaluate(
        table=write_rows(tmp_path / "in", maps, masks, category=categories), fpr_bounds=BOUNDS, intervals=True
    )
    widths = [scores.intervals["aupimo"].upper - scores.intervals["aupimo"].lower for scores in evaluation.categories]
    mean = evaluation.mean_intervals["aupimo"]
    assert mean.upper - mean.lower < min(widths[:2])
    assert mean.lower < evaluation.means()["aupimo"][0] < mean.upper
    assert math.isnan(widths[2])
    assert "not known" in evaluation.summary()


def test_groups_of_a_table_are_drawn(tmp_path: Path) -> None:
    """A column `group` reaches intervals and comparisons of every metric; an empty cell is a group of its own."""
    maps, masks = make_data(6, 6, 6)
    groups = [f"part {index}" for index in range(12)]
    once = evaluated(tmp_path / "once", maps, masks, metrics=ALL, intervals=True)
    twice = evaluated(tmp_path / "twice", maps * 2, masks * 2, groups * 2, metrics=ALL, intervals=True)
    alone = evaluated(tmp_path / "alone", maps, masks, ["", *groups[1:]], metrics=ALL, intervals=True)
    for name, expected in once.categories[0].intervals.items():
        for other in (twice, alone):
            # Which pixels are in the sample that the bins come from differs.
            assert other.categories[0].intervals[name][:2] == pytest.approx(expected[:2], abs=2e-3), name
    assert "6 normal and 6 anomalous groups of images" in twice.summary()
    comparison = compare_paths([keep(twice, tmp_path / name) for name in "ab"])
    assert "groups of images" in comparison.summary()
    # Groups are those of any model that has them, and of none if they disagree.
    folders = [saved(tmp_path / "c", maps * 2, masks * 2, metrics=ALL), tmp_path / "a"]
    of_either = [compare_paths(order, metric="auroc").comparisons[""] for order in (folders, folders[::-1])]
    assert of_either[0].intervals == of_either[1].intervals
    others = [*groups, *groups[1:6], *groups[:1], *groups[6:]]
    saved(tmp_path / "d", maps * 2, masks * 2, groups=others, metrics=ALL)
    with pytest.raises(BadDataError, match="the same groups of images, but those of 'a' and 'd' differ"):
        compare_paths([tmp_path / "a", tmp_path / "d"])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the evaluations of a good model and a worse one."""
    folder = tmp_path_factory.mktemp("models")
    maps, masks = make_data(10, 10, 6)
    random = np.random.default_rng(0)
    worse = [each + random.normal(size=each.shape).astype(np.float32) for each in maps]
    for name, scores in (("good", maps), ("worse", worse)):
        evaluated(folder / f"in_{name}", scores, masks, metrics=ALL).save(folder / name)
    return folder


def test_a_histogram_does_not_shift_an_interval_out_of_what_is_known(tmp_path: Path) -> None:
    """With coarse bins the value is far off, but counts of images know it better."""
    maps, masks = make_data(8, 8, 6)
    exact, coarse = (
        evaluated(tmp_path, maps, masks, metrics=["aupr"], num_bins=number, intervals=True).categories[0]
        for number in (None, 64)
    )
    assert abs(exact.values()["aupr"] - coarse.values()["aupr"]) > 0.02
    assert coarse.intervals["aupr"][:2] == pytest.approx(exact.intervals["aupr"][:2], abs=0.01)


@pytest.mark.parametrize("metric", ["aupimo", "aupro", "image_auroc"])
def test_models_are_compared_by_any_metric(models: Path, tmp_path: Path, printed: Any, metric: Any) -> None:
    """The better one is first, with its interval and the confidence, in text, CSV, LaTeX, JSON and a picture."""
    folders = [models / "good", models / "worse"]
    found = json.loads(printed(f"compare --json --metric {metric} --out", tmp_path / "compared", *folders))
    best, second = found["categories"][0]["models"]
    values = json.loads((models / "good/summary.json").read_text())["mean"]
    assert (best["model"], best["mean"]) == ("good", pytest.approx(values[metric]))
    assert best["interval"][0] <= best["mean"] <= best["interval"][1]
    assert second["differences"]["good"][0] == pytest.approx(second["mean"] - best["mean"])
    assert found["categories"][0]["test"] == "resampled"
    text = (tmp_path / "compared/comparison.txt").read_text()
    assert "resampled images, 10 normal and 10 anomalous" in text
    assert ("for these thresholds, 10 images" in text) == (metric == "aupimo")
    assert (tmp_path / "compared/confidence.png").is_file()
    assert "difference_from_good_lower" in (tmp_path / "compared/comparison.csv").read_text()


def test_seeds_and_categories_are_compared_by_another_metric(tmp_path: Path) -> None:
    """The value of a model is the mean over its seeds, and models are ranked over the categories."""
    for category in ("bolt", "tile"):
        maps, masks = make_data(6, 6, 6, seed=ord(category[0]))
        for seed in (0, 1):
            noisy = [each + np.float32(0.1 * seed) * each**2 for each in maps]
            saved(tmp_path / f"out/a/seed{seed}/{category}", noisy, masks, metrics=["aupro"])
        saved(tmp_path / f"out/b/{category}", maps, masks, metrics=["aupro"])
    comparison = compare_paths(tmp_path / "out", metric="aupro")
    seeds = comparison.seed_means["bolt"]["a"]
    assert comparison.comparisons["bolt"].means["a"] == pytest.approx(np.mean(list(seeds.values())))
    assert {*comparison.ranking.average_ranks} == {"a", "b"}
    assert "AUPRO up to FPR 0.3" in comparison.summary()
    assert comparison.of_means.means == pytest.approx(comparison.ranking.means)
    assert "mean over 2 categories; resampled images, 12 normal and 12 anomalous" in comparison.summary()
    assert comparison.to_dict()["of_means"]["models"][0]["model"] == comparison.of_means.order[0]
    with pytest.raises(ValueError, match="`report` with the metric aupimo"):
        comparison.save(tmp_path / "compared", report=True)


def test_what_cannot_be_compared_by_a_metric_is_refused(tmp_path: Path) -> None:
    """A metric that was not computed, another protocol, other images or classes, and files that were changed."""
    maps, masks = make_data(4, 4, 6)
    saved(tmp_path / "full", maps, masks, metrics=ALL)
    saved(tmp_path / "few", maps, masks, metrics=["auroc"])
    saved(tmp_path / "stale", maps, masks, metrics=["auroc"])
    saved(tmp_path / "small", maps, masks, metrics=ALL, size=10)
    less = saved(tmp_path / "less", maps[1:], masks[1:], metrics=ALL)
    AUPIMOResult.load(less / "aupimo/aupimos.json").save(tmp_path / "stale/aupimo/aupimos.json")
    saved(tmp_path / "turned", maps, masks[::-1], metrics=ALL)
    refused = {
        "stale": "Expected the counts of auroc of these scores .* but there are none",
        "few": "Evaluate the maps with `--metrics aupro` and `--out`",
        "small": "computed alike, but got 'AUPRO up to FPR 0.3",
        "less": "to be of the same images",
        "turned": "the same normal images",
    }
    for name, fault in refused.items():
        with pytest.raises(BadDataError, match=fault):
            compare_paths([tmp_path / "full", tmp_path / name], metric="auroc" if name == "stale" else "aupro")
    with pytest.raises(
        BadDataError, match="computed alike, but got 'image AUROC of the highest score of the map, at the"
    ):
        compare_paths([tmp_path / "full", tmp_path / "small"], metric="image_auroc")
    wide = [mask | np.roll(mask, 3, axis=0) for mask in masks]
    saved(tmp_path / "wide", maps, wide, metrics=ALL)
    (line,) = compare_paths([tmp_path / "full", tmp_path / "wide"], metric="auroc").warnings
    assert "not the same masks" in line
    file = tmp_path / "small/aupimo/counts.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(BadDataError, match=r"counts.safetensors to hold counts of images, but could not read it"):
        compare_paths([tmp_path / "full", tmp_path / "small"], metric="auroc")


BROKEN: dict[str, Callable[[dict[str, Any], dict[str, str]], Any]] = {
    "NaN among shares": lambda tensors, _: tensors["shares"].fill_(math.nan),
    "a negative count": lambda tensors, _: tensors["normal"].fill_(-1),
    "another dtype": lambda tensors, _: tensors.update(mask=tensors["mask"].long()),
    "fewer images": lambda tensors, _: tensors.update(mask=tensors["mask"][1:]),
    "an unknown tensor": lambda tensors, _: tensors.update(other=tensors["mask"].clone()),
    "a value above 1": lambda _, texts: texts.update(values='{"auroc": 2.0}', protocols='{"auroc": ""}'),
    "an unknown metric": lambda _, texts: texts.update(values='{"x": 0.5}', protocols='{"x": ""}'),
    "values that are no dict": lambda _, texts: texts.update(values="[]"),
    "too few paths": lambda _, texts: texts.update(paths='["a"]'),
    "another format": lambda _, texts: texts.update(format="aupimo-torchmetrics counts 9"),
    "no paths": lambda _, texts: texts.pop("paths"),
    "paths that are null": lambda _, texts: texts.update(paths="null"),
}


def test_a_broken_file_of_counts_is_an_error(models: Path, tmp_path: Path) -> None:
    """Also one whose checksum was made to fit."""
    for break_it in BROKEN.values():
        with safe_open(next((models / "good").rglob("counts.safetensors")), "pt") as file:
            tensors, texts = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        break_it(tensors, texts)
        settings = [each for each in count_files._SETTINGS if each in texts]
        texts["sha256"] = checksum(tensors, texts, settings)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "counts", texts)
        with pytest.raises(ValueError, match="to hold counts of images, but could not read it"):
            read_counts(tmp_path / "counts")


def test_counts_hold_what_metrics_need(tmp_path: Path) -> None:
    """Metrics of images alone need no counts of pixels."""
    saved(tmp_path, *make_data(2, 2, 6), metrics=["image_auroc"])
    assert read_counts(tmp_path / "aupimo/counts.safetensors").pixels is None


def test_many_images_have_fewer_bins() -> None:
    """So that counts of very many images fit into memory."""
    scores = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    sizes = [len(bin_edges(scores[:5000], scores[5000:], number)) for number in (10, 100_000, 10**7)]
    assert sizes[0] > sizes[1] > sizes[2] >= 32


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program that simulates intervals and tests, as a module."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "benchmarks")
    return importlib.import_module("intervals")


WORLDS = ("images alike", "effects of images")


@pytest.mark.parametrize(("num_images", "least"), [(20, 0.88), (100, 0.92)])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:AUPIMO")
def test_intervals_hold_as_often_as_they_say(simulation: Any, world: str, num_images: int, least: float) -> None:
    """Of every metric, in two worlds: a share below the least one by more than chance (two deviations) is a fault."""
    num_sets = 200
    held = simulation.coverage(simulation.WORLDS[world], num_images, num_sets, 200)
    assert {*held} == {"aupimo", *PIXEL_METRICS}
    assert min(held.values()) >= least - 2 * math.sqrt(least * (1 - least) / num_sets), held


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:AUPIMO")
def test_equal_models_are_seldom_called_different(simulation: Any, world: str) -> None:
    """The test by resampled images does so in 3 to 8 of 100 cases, give or take two deviations of chance."""
    num_sets = 300
    found = simulation.false_alarms(simulation.WORLDS[world], 20, num_sets, 200)["resampled images"]
    low, high = (
        share + sign * 2 * math.sqrt(share * (1 - share) / num_sets) for share, sign in ((0.03, -1), (0.08, 1))
    )
    assert low <= found <= high


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:AUPIMO")
def test_where_few_images_carry_the_fpr_the_text_says_so(simulation: Any, tmp_path: Path) -> None:
    """There no interval of AUPIMO can be trusted; results, evaluations and comparisons name the number of images."""
    world, generator = simulation.WORLDS["few images carry the FPR"], torch.Generator().manual_seed(0)
    masks = simulation.draw_masks(20, generator)
    maps = simulation.draw_maps(world, masks, simulation.draw_contrast(world, masks, generator), generator)
    for name in "ab":
        result = updated(AUPIMO(fpr_bounds=world.fpr_bounds), [(maps, masks)]).result()
        assert "from few images" in result.warnings[-1]
        result.save(tmp_path / f"{name}.json")
    text = compare_paths([tmp_path / "a.json", tmp_path / "b.json"]).summary()
    assert "Few normal images carry the shared FPR: as many as" in text
