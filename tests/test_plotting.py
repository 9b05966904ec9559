"""Pictures draw what they say, on the axis they are given, and leave nothing else open."""

import io
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
import torch
from helpers import make_batch, updated
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

from aupimo_torchmetrics import AUPIMO, AUPIMOResult, PIMOResult, plotting, statistics
from aupimo_torchmetrics.functional import pimo
from aupimo_torchmetrics.plotting import plot_confidence, plot_distribution, plot_heatmap, plot_heatmaps, plot_ranks

BOUNDS = (1e-3, 1e-1)


@pytest.fixture(autouse=True)
def _no_figure_is_left_open() -> Iterator[None]:
    """What a test does not return from a plot function is closed by the library itself."""
    plt.close("all")
    yield
    plt.close("all")


class Scored(NamedTuple):
    """Maps and masks of images, with their scores and curves."""

    maps: torch.Tensor
    masks: torch.Tensor
    result: AUPIMOResult
    curves: PIMOResult


@pytest.fixture(scope="module")
def scored() -> Scored:
    """Maps and masks of 3 normal and 9 anomalous images, ever easier, with their scores and curves."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(12, 32, 32, dtype=torch.bool)
    masks[3:, 8:20, 10:24] = True
    maps = torch.randn(12, 32, 32, generator=generator) + torch.linspace(0, 4, 12)[:, None, None] * masks
    return Scored(maps, masks, result_of(maps, masks), pimo(maps, masks))


def result_of(maps: torch.Tensor, masks: torch.Tensor, image_ids: list[str] | None = None) -> AUPIMOResult:
    """Score maps."""
    metric = AUPIMO(fpr_bounds=BOUNDS)
    metric.update(maps, masks, image_ids)
    return metric.result()


def make_result(scores: Any) -> AUPIMOResult:
    """Make a result with the given scores."""
    return AUPIMOResult(torch.as_tensor(scores, dtype=torch.float64), BOUNDS, (0.0, 1.0))


DRAWN: dict[str, Callable[..., Any]] = {
    "curves": lambda s, **settings: plotting.plot_pimo_curves(s.curves, s.result, **settings),
    "heat map": lambda s, **settings: plot_heatmap(s.maps[0], s.maps[0], s.result, **settings),
    "distribution": lambda s, **settings: plot_distribution(s.result, **settings),
    "ranks": lambda _, **settings: plot_ranks(_ranking(), **settings),
    "confidence": lambda _, **settings: plot_confidence(_comparison(), **settings),
}
"""Each function that draws on an axis."""


@pytest.mark.parametrize("kind", DRAWN)
def test_pictures_have_a_figure_or_the_axis_that_is_given(
    scored: Scored, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One figure is opened, or none if there is an axis; without matplotlib the error is the one of torchmetrics."""
    figure, ax = DRAWN[kind](scored)
    assert plt.get_fignums() == [figure.number]
    assert ax in figure.axes
    figure = plt.figure()
    ax = figure.subfigures(1, 2)[0].subplots()
    assert DRAWN[kind](scored, ax=ax) == (figure, ax)  # the figure to save, not the part that holds the axis
    assert len(plt.get_fignums()) == 2
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="Plot function expects `matplotlib` to be installed"):
        DRAWN[kind](scored)


def _legend(ax: plt.Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_curves_show_range_images_mean_and_chance(scored: Scored) -> None:
    """The range, each chosen image with its score, the mean and chance are drawn from the results and named.

    A shared FPR of 0, of a threshold above all normal scores, cannot stand on a log axis, and is not drawn.
    """
    _, _, result, curves = scored
    curves = curves._replace(shared_fpr=torch.cat([curves.shared_fpr[:-1], torch.zeros(1)]))
    _, ax = plotting.plot_pimo_curves(curves, result, images=[11, 4])
    assert ax.get_xscale() == "log"
    range_label, *labels, chance_label = _legend(ax)
    assert "FPR 0.001 to 0.1" in range_label
    images = [f"image {index} · {result.aupimos[index]:.2f}" for index in (4, 11)]
    assert labels == [*images, f"mean of 9 images: AUPIMO {result.mean:.2f}"]
    assert re.search("TPR = FPR.*0.021", chance_label)  # (0.1 - 0.001) / log(100)

    has_fpr = curves.shared_fpr > 0
    first, second, mean, chance = ax.get_lines()
    for line, expected in ((first, curves.per_image_tprs[4]), (second, curves.per_image_tprs[11])):
        assert np.array_equal(line.get_xdata(), curves.shared_fpr[has_fpr])
        assert np.array_equal(line.get_ydata(), expected[has_fpr])
    assert np.allclose(mean.get_ydata(), curves.per_image_tprs[3:].mean(0)[has_fpr], rtol=1e-6)
    assert np.array_equal(chance.get_xdata(), chance.get_ydata())
    assert first.get_color() != second.get_color()
    assert ax.get_xlim()[0] > 0
    (shade,) = ax.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx(BOUNDS)


def test_curves_without_scores(scored: Scored) -> None:
    """Without a result there is no range and no score, and five images from the worst to the best are drawn.

    Curves may be of NumPy maps.
    """
    _, ax = plotting.plot_pimo_curves(pimo(scored.maps.numpy(), scored.masks.numpy()))
    assert len(ax.patches) == 0
    by_recall = scored.curves.per_image_tprs[3:].mean(1).argsort() + 3
    chosen = [int(by_recall[rank]) for rank in (0, 2, 4, 6, 8)]
    assert _legend(ax) == [*(f"image {image}" for image in chosen), "mean of 9 images", "chance (TPR = FPR)"]


def test_curves_around_the_bounds_are_those_of_the_metric(scored: Scored) -> None:
    """The axis ends where the curves of `AUPIMO.curves` end."""
    metric = updated(AUPIMO(fpr_bounds=(1e-3, 1e-2), normal_buffer=300), [(scored.maps, scored.masks)])
    curves = metric.curves()
    _, ax = plotting.plot_pimo_curves(curves, metric.result())
    assert ax.get_xlim() == pytest.approx((float(curves.shared_fpr.min()), float(curves.shared_fpr.max())))
    assert ax.get_xlim()[1] < 1


def test_curves_without_a_normal_image_draw(scored: Scored) -> None:
    """Undefined results give a picture without curves, not an error."""
    undefined = []
    for make in (pimo, result_of):
        with pytest.warns(UserWarning, match="undefined"):
            undefined.append(make(scored.maps[3:], scored.masks[3:]))
    _, ax = plotting.plot_pimo_curves(*undefined)
    assert len(_legend(ax)) == 3


def test_heatmap_shows_photograph_mask_and_pixel_scores(scored: Scored) -> None:
    """Below lies the photograph, above it the pixels' shares, clear where they are 0; title and outline are there."""
    maps, masks, result, _ = scored
    photograph = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(1))
    fig, ax = plot_heatmap(photograph, maps[9], result, masks[9], index=9)
    below, above = ax.images
    assert np.array_equal(below.get_array(), photograph[0])
    weights = result.pixel_aupimo(maps[9])
    assert np.array_equal(np.ma.getmaskarray(above.get_array()), weights == 0)
    assert np.array_equal(above.get_array().filled(0), weights)
    assert ax.get_title() == f"image 9 · {result.aupimos[9]:.2f}"
    assert weights[masks[9]].mean() == pytest.approx(float(result.aupimos[9]), abs=1e-6)  # float32 weights
    (outline,) = ax.collections
    assert np.array_equal(outline.get_edgecolor()[0], to_rgba("deeppink"))
    assert len(fig.axes) == 2  # the picture and its colour bar


RANGES = [(0.2, 0.7, "float32", (0, 1)), (-2.0, 0.5, "float64", (-2.0, 0.5))]
RANGES += [(256, 4095, "uint16", (256, 4095)), (-5, 60000, "int32", (-5, 60000))]


@pytest.mark.parametrize(("low", "high", "dtype", "limits"), RANGES)
def test_photographs_of_any_range_are_drawn(scored: Scored, low: float, high: float, dtype: str, limits: tuple) -> None:
    """A photograph in [0, 1] is drawn as it is, every other one from its darkest to its brightest pixel."""
    maps, masks, result, _ = scored
    array: Any = np.linspace(low, high, 32 * 32).round(2).reshape(32, 32).astype(dtype)
    _, axes = plot_heatmaps([array, torch.from_numpy(array)], maps[9:11], result, masks[9:11])
    for ax in axes.flat:
        assert ax.images[0].get_clim() == pytest.approx(limits, rel=1e-4)
        assert np.allclose(ax.images[0].get_array(), array.astype(np.float32))


def test_heatmaps_of_several_images(scored: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs stand above heat maps, with captions and scores, and images may differ in size."""
    maps, masks, result, _ = scored
    images = [torch.rand(32, 32), torch.rand(3, 20, 30)]
    both = [maps[9], maps[4, :20, :30]], [masks[9], masks[4, :20, :30]]
    fig, axes = plot_heatmaps(images, both[0], result, both[1], captions=["good", "bad"])
    assert axes.shape == (2, 2)
    assert [ax.get_title() for ax in axes[0]] == ["good", "bad"]
    assert axes[1, 0].get_title() == f"AUPIMO {result.aupimos[9]:.2f}"
    assert len(fig.axes) == 5  # with one colour bar
    assert axes[0, 1].images[0].get_array().shape == (20, 30)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="Plot function expects `matplotlib` to be installed"):
        plot_heatmaps(images, both[0], result)


@pytest.mark.parametrize(
    ("paths", "name"), [(None, "image {}"), ([f"tile/test/scratch/{i:03}.png" for i in range(12)], "scratch/{:03}")]
)
def test_pictures_name_images(scored: Scored, paths: list[str] | None, name: str) -> None:
    """Images are titled by index, or by folder and name, with score; by default by their role, the worst first."""
    maps, masks, result, curves = scored
    named = replace(result, paths=paths)
    titles = [f"{name.format(index)} · {score:.2f}" for index, score in enumerate(result.aupimos.tolist())]
    expected: dict[int, list[str]] = {}
    for statistic in statistics.per_image_statistics(result):
        expected.setdefault(statistic.image, []).append(statistic.name)
    assert len(expected) > 3
    labels = [label.replace("\n", " ") for label in _legend(plotting.plot_pimo_curves(curves, named)[1])[1:-2]]
    assert labels == [f"{titles[index]} ({', '.join(roles)})" for index, roles in expected.items()]
    _, axes = plot_heatmaps(maps[[9, 0]], maps[[9, 0]], named, masks[[9, 0]], indices=[9, 0])
    scored_title, normal_title = (ax.get_title() for ax in axes[1])
    assert scored_title == titles[9]
    assert normal_title.startswith(f"{name.format(0)} · normal\n")
    assert normal_title.endswith("% false positives")


LONG = "a_folder_with_a_very_long_name/a_file_with_a_long_name_{:03}.png"
CAPTION = "low whisker, first quartile, median, mean, third quartile; one of 12 images with this score"


TITLES = [
    (1, LONG, True, None, (24, 96)),
    (2, "x/crack/{:03}.png", False, (6.4, 4.8), (48, 48)),
    (3, "x/\u50b7\U0001f525\u50b7/{:03}.png", True, None, (96, 24)),
    (4, LONG, False, None, (24, 96)),
    (6, LONG, True, (9, 5), (96, 24)),
]


@pytest.mark.parametrize(("num_images", "path", "captions", "size", "shape"), TITLES)
def test_titles_of_heatmaps_stand_apart(
    num_images: int, path: str, captions: bool, size: tuple | None, shape: tuple
) -> None:
    """No title runs over another one, a picture or the colour bar, or out of the figure."""
    maps, masks = make_batch("N" + "A" * 12, 0, shape)
    result = result_of(maps, masks, [path.format(index) for index in range(13)])
    chosen = list(range(num_images))  # the first is normal: its title has a second line
    figure = None if size is None else plt.figure(figsize=size, layout="constrained")
    texts = [CAPTION] * num_images if captions else None
    figure, axes = plot_heatmaps(maps[chosen], maps[chosen], result, masks[chosen], chosen, texts, figure)
    figure.canvas.draw()
    titles = [ax.title.get_window_extent() for ax in axes.flat if ax.get_title()]
    others = [ax.get_tightbbox() for ax in figure.axes if ax not in axes] + [ax.get_window_extent() for ax in axes.flat]
    assert len(titles) == num_images * (1 + captions)
    for one, other in itertools.chain(itertools.combinations(titles, 2), itertools.product(titles, others)):
        assert not one.padded(-0.5).overlaps(other.padded(-0.5))
    for title in titles:
        assert figure.bbox.x0 <= title.x0 <= title.x1 <= figure.bbox.x1
        assert title.y1 <= figure.bbox.y1 + 1


@pytest.mark.parametrize("num_alike", [2, 12, 22])
def test_images_with_equal_scores_stand_for_one_statistic_each(num_alike: int) -> None:
    """Statistics share no image as long as others score the same; these are spread over all, and the text says so."""
    result, alike = make_result([0.0] * num_alike + [math.nan, 1.0]), make_result([math.nan] + [0.0] * num_alike)
    told = f"; one of {num_alike} images with this score"
    assert [text.endswith(told) for index, text in plotting.representative_images(result).items() if index < num_alike]
    *_, (last, text) = plotting.representative_images(result).items()
    assert (last, text.endswith(told)) == (num_alike + 1, False) or last < num_alike
    roles = plotting.representative_images(alike)
    assert len(roles) == min(6, num_alike)
    assert (min(roles), max(roles)) == (1, num_alike)
    assert all(text.endswith(told) for text in roles.values())
    names = [name for text in roles.values() for name in text.removesuffix(told).split(", ")]
    assert len({*names}) == len(names) == 6
    curves = PIMOResult(torch.ones(3), torch.tensor([0.1, 0.01, 0.001]), torch.zeros(num_alike + 1, 3))
    labels = _legend(plotting.plot_pimo_curves(curves, alike)[1])[1:-2]  # without range, mean and chance
    assert [told[2:] in label.replace("\n", " ") for label in labels] == [True] * len(roles)


def test_small_scores_are_told_from_chance() -> None:
    """A score that two decimals hide is in scientific form, a mean beside that of chance; 0 is 0."""
    result = make_result([math.nan, 0.0, 3e-5, 6e-5])
    curves = PIMOResult(torch.ones(3), torch.tensor([0.1, 0.01, 0.001]), torch.zeros(4, 3))
    _, *labels, mean, _ = (label.replace("\n", " ") for label in _legend(plotting.plot_pimo_curves(curves, result)[1]))
    assert mean == f"mean of 3 images: AUPIMO 3.0e-05 (chance {result.chance:.1e})"
    assert all(text in label for text, label in zip((" · 0 ", " · 3.0e-05 ", " · 6.0e-05 "), labels, strict=True))
    (label,) = plot_distribution(result)[1].get_yticklabels()
    assert f"mean 3.0e-05 (chance {result.chance:.1e})" in label.get_text()
    assert "quartiles 1.5e-05 3.0e-05 4.5e-05" in label.get_text()
    maps, masks = make_batch("NA", 0, (64, 64))
    weak = replace(result_of(maps, masks), aupimos=torch.tensor([math.nan, 3e-5]))
    assert plot_heatmap(maps[1], maps[1], weak, index=1)[1].get_title() == "image 1 · 3.0e-05"
    assert str(weak).startswith("AUPIMO 3.0e-05 (chance ")


def test_distribution_shows_each_image_and_the_statistics(scored: Scored) -> None:
    """Each anomalous image is a point at its score; box, median and mean are those of the scores."""
    result = make_result(scored.result.aupimos)
    _, ax = plot_distribution(result)
    scores = result.aupimos[3:].sort().values
    (points,) = ax.collections
    assert np.allclose(points.get_offsets()[:, 0], scores)
    assert np.abs(points.get_offsets()[:, 1]).max() < 0.5
    brightness = points.get_facecolors()[:, :3].sum(1)
    assert (np.diff(brightness) > 0).all()  # higher scores are brighter
    first, median, third = torch.quantile(scores, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    by_marker = {line.get_marker(): line.get_xdata() for line in ax.get_lines()}
    assert by_marker["D"][0] == pytest.approx(result.mean)
    assert any(np.allclose(line.get_xdata(), median) for line in ax.get_lines())
    places = ax.patches[0].get_path().vertices[:, 0]
    assert (places.min(), places.max()) == pytest.approx((first, third))
    (label,) = ax.get_yticklabels()
    low, high = statistics.bootstrap_interval(result)
    mean = f"mean {result.mean:.2f}, {low:.2f} to {high:.2f} (9 images)"
    assert label.get_text() == f"{mean}\nquartiles {first:.2f} {median:.2f} {third:.2f}"


def test_distributions_of_models_stand_best_first(scored: Scored) -> None:
    """Models are sorted by their means, one without a score last, unless they are to stay in their order."""
    result = scored.result
    models = {"undefined": make_result([torch.nan] * 3), "worse": make_result(result.aupimos / 2), "best": result}
    for sort, names in ((True, ["best", "worse", "undefined"]), (False, ["undefined", "worse", "best"])):
        _, ax = plot_distribution(models, sort=sort)
        assert [label.get_text().splitlines()[0] for label in ax.get_yticklabels()] == names
        assert ax.yaxis_inverted()
    models = {"first": make_result([1 - 2**-53] * 3), "second": make_result([1.0] * 3)}  # equal but for rounding
    _, ax = plot_distribution(models)
    assert [label.get_text().splitlines()[0] for label in ax.get_yticklabels()] == ["first", "second"]


def _ranking() -> statistics.ModelRanking:
    """Four models on 13 data sets: two that take turns at the top, and two far behind."""
    orders = [("a", "b", "c", "d") if number % 2 else ("b", "a", "c", "d") for number in range(13)]
    results = [{name: make_result([1 - rank / 4]) for rank, name in enumerate(order)} for order in orders]
    return statistics.rank_models({str(number): each for number, each in enumerate(results)})


def test_ranks_show_models_critical_difference_and_groups() -> None:
    """Each model has a row, the best on top, with dot and bar; the difference and the groups are drawn to scale."""
    ranking = _ranking()
    critical = ranking.critical_difference
    assert [set(group) for group in ranking.groups] == [{"a", "b"}, {"c", "d"}]
    _, ax = plot_ranks(ranking)
    assert ax.yaxis_inverted()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [f"{name}  {ranking.average_ranks[name]:.2f}" for name in ranking.order]
    single, average = ax.collections[::2], ax.collections[1::2]
    bars, groups, scale = ax.get_lines()[:4], ax.get_lines()[4:6], ax.get_lines()[6]
    for row, name in enumerate(ranking.order):
        assert average[row].get_offsets().tolist() == [[ranking.average_ranks[name], row]]
        own = {ranks[name] for ranks in ranking.ranks.values()}
        assert single[row].get_offsets().tolist() == [[rank, row] for rank in sorted(own)]
        assert bars[row].get_xdata() == pytest.approx(ranking.average_ranks[name] + np.array([-0.5, 0.5]) * critical)
    for group, (first, last) in zip(groups, [(0, 1), (2, 3)], strict=True):
        assert np.round(group.get_ydata()).tolist() == [first, last]
    assert np.diff(scale.get_xdata()) == pytest.approx(critical)
    assert ax.texts[0].get_text() == f"critical difference {critical:.2f}"
    assert "over 13 data sets (1 is best)" in ax.get_xlabel()
    assert "alpha 0.05" in ax.get_xlabel()


def _comparison(alternative: str = "greater", test: str = "wilcoxon") -> statistics.ModelComparison:
    """Three models on 12 images, of which the best is clearly so."""
    scores = torch.rand(3, 12, generator=torch.Generator().manual_seed(0)) / 2 + torch.tensor([[0], [0], [0.5]])
    return statistics.compare_models(dict(zip("abc", map(make_result, scores), strict=True)), test, alternative)


def two_models(confidence: float, other: float = 0.0) -> statistics.ModelComparison:
    """A comparison with these confidences."""
    return statistics.ModelComparison(
        ("a", "b"), {}, {}, {}, {("a", "b"): confidence, ("b", "a"): other}, "ttest", "greater", 3
    )


RELATIONS = {"greater": "better than", "less": "worse than", "two-sided": "different from"}


@pytest.mark.parametrize(("alternative", "test"), [*zip(RELATIONS, ("wilcoxon", "ttest", "wilcoxon"), strict=True)])
def test_confidence_is_a_matrix_of_rows_against_columns(alternative: str, test: str) -> None:
    """A cell holds the confidence of its row's model against its column's, best first, and the label says in what."""
    comparison = _comparison(alternative, test)
    _, ax = plot_confidence(comparison)
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert tuple(label.get_text() for label in labels) == comparison.order
    cells = ax.images[0].get_array().filled(np.nan)
    assert np.isnan(np.diag(cells)).all()
    written = {tuple(int(position) for position in text.get_position()): float(text.get_text()) for text in ax.texts}
    for (a, b), confidence in comparison.confidence.items():
        row, column = comparison.order.index(a), comparison.order.index(b)
        assert cells[row, column] == confidence
        assert 0 <= confidence - written[column, row] < 0.001  # rounded down
    assert ax.images[0].get_clim() == (0, 1)
    label = " ".join(ax.get_xlabel().split())
    where = f"for these thresholds (1 - p, {'t-test' if test == 'ttest' else 'Wilcoxon test'}, 12 images)"
    assert label == f"confidence that the row's model is {RELATIONS[alternative]} the column's {where}"


def test_numbers_in_cells_can_be_read() -> None:
    """Numbers stand out from their cell: the contrast is 4.5 or more, as the WCAG asks of text, at any confidence."""
    order = tuple("abcdefghijk")
    confidence = {pair: step / 109 for step, pair in enumerate(itertools.permutations(order, 2))}
    _, ax = plot_confidence(replace(two_models(0.5), order=order, confidence=confidence))
    for text, value in zip(ax.texts, confidence.values(), strict=True):
        luminances = [_luminance(color) for color in (text.get_color(), ax.images[0].to_rgba(value))]
        assert (max(luminances) + 0.05) / (min(luminances) + 0.05) >= 4.5


def _luminance(color: Any) -> float:
    """Relative luminance of a colour, by WCAG 2."""
    channels = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in to_rgba(color)[:3]]
    return float(np.dot([0.2126, 0.7152, 0.0722], channels))


@pytest.mark.parametrize("num_models", [2, 13])
def test_labels_of_comparisons_do_not_overlap(num_models: int) -> None:
    """Names of models, numbers in cells and labels stand apart and within the picture, for two models and for many."""
    names = [f"efficientad_wr101_{number:02}_ext" for number in range(num_models)]
    scores = {name: make_result(torch.rand(9)) for name in names}
    for fig, ax in (
        plot_ranks(statistics.rank_models({"x": scores, "y": scores})),
        plot_confidence(statistics.compare_models(scores)),
    ):
        fig.canvas.draw()
        upright = [*ax.get_yticklabels(), *ax.texts, ax.xaxis.label]
        boxes = [text.get_window_extent() for text in upright if text.get_text()]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        for box in (*boxes, *(label.get_window_extent() for label in ax.get_xticklabels())):
            assert 0 <= box.x0 <= box.x1 <= fig.bbox.x1
            assert 0 <= box.y0 <= box.y1 <= fig.bbox.y1


def test_names_are_drawn_as_they_are(scored: Scored) -> None:
    """Names that matplotlib takes for formulas are drawn letter by letter, and numbers for what has no glyph."""
    maps, masks, result, curves = scored
    names = ["$x^{$", "$a$b$", "cost $5", "50 % & #1_{x}", "tür", "b\udce4r", "\u50b7 a", "fire\U0001f525", "a\tb\nc"]
    drawn = [*names[:5], r"b\udce4r", r"\u50b7 a", r"fire\U0001f525", r"a\tb\nc"]
    named = replace(result, paths=[f"x/{names[index % 9]}/{index:02}.png" for index in range(12)])
    models = {name: replace(result, aupimos=result.aupimos * (1 - place / 20)) for place, name in enumerate(names)}
    captions = [name.replace("$", "") for name in names]
    for figure in (
        plot_heatmaps(maps[3:], maps[3:], named, masks[3:], range(3, 12), captions, plt.figure(figsize=(40, 5)))[0],
        plotting.plot_pimo_curves(curves, named, range(3, 12))[0],
        plot_distribution(models)[0],
        plot_confidence(statistics.compare_models(models))[0],
        plot_ranks(statistics.rank_models({"a": models, "b": models}))[0],
    ):
        figure.savefig(io.BytesIO())
        texts = [text.get_text().replace(r"\$", "$") for text in figure.findobj(mpl.text.Text)]
        assert [name for name in drawn if not any(name in text for text in texts)] == []


def test_titles_of_heatmaps_say_what_is_known(scored: Scored) -> None:
    """A normal image has its false positives; without an index there is the score of map and mask, or nothing."""
    maps, masks, result, _ = scored
    fig, ax = plt.subplots()
    plot_heatmap(torch.rand(3, 32, 32), maps[0], result, masks[0], index=0, ax=ax)
    share = (result.pixel_aupimo(maps[0]) > 0).float().mean()
    assert ax.get_title() == f"image 0 · normal\n{share:.2%} false positives"
    assert len(ax.collections) == 0
    assert len(fig.axes) == 1
    _, ax = plot_heatmap(torch.rand(32, 32), maps[6], result, masks[6].long())
    assert ax.get_title() == f"AUPIMO {result.aupimos[6]:.2f}"
    photograph = torch.linspace(2, 7, 32 * 32).reshape(32, 32)
    photograph[0, 0], photograph[9, 9] = torch.nan, torch.inf
    _, ax = plot_heatmap(photograph, maps[1], result)
    assert ax.get_title() == ""
    assert ax.images[0].get_clim() == pytest.approx((2, 7), abs=0.01)  # NaN and infinite pixels are not counted


SHORTEST = [
    (["000.png"], ["000"]),
    (["/data/tile/test/crack/000.png"], ["crack/000"]),
    (["C:\\tile\\test\\crack\\000.png", "test/crack/part_1.5"], ["crack/000", "crack/part_1.5"]),
    (["test/crack/rgb/000.png", "test/hole/rgb/000.png"], ["crack/rgb/000", "hole/rgb/000"]),
    (["test/crack/000.png", "test/crack/000.jpg"], ["crack/000.png", "crack/000.jpg"]),
    (["crack/000.png", "test/crack/000.png"], ["crack/000", "test/crack/000"]),
    (["test/crack/1000.png", "test/crack/000.png"], ["crack/1000", "crack/000"]),
]


@pytest.mark.parametrize(("paths", "names"), SHORTEST)
def test_names_in_pictures_are_those_of_one_image(scored: Scored, paths: list[str], names: list[str]) -> None:
    """A name is the shortest end of a path that no other image has, of two parts or more, or else the whole path."""
    others = [f"n/{number}/n{number}.png" for number in range(12 - len(paths))]
    result, chosen = replace(scored.result, paths=[*others[:3], *paths, *others[3:]]), range(3, 3 + len(names))
    _, ax = plotting.plot_pimo_curves(scored.curves, result, chosen)
    assert [label.rsplit(" · ", 1)[0] for label in _legend(ax)[1:-2]] == names


WRONG: dict[str, Any] = {
    "`results` to hold at least one result": lambda _: plot_distribution({}),
    "`results` to hold images, but got a result of none.": lambda _: plot_distribution(make_result([])),
    "a result of none of 'b'": lambda s: plot_distribution({"a": s.result, "b": make_result([])}),
    "`results` to be a result or a mapping": lambda s: plot_distribution([s.result]),
    "`curves` to hold the TPRs (N, K) of images, but got": lambda s: plotting.plot_pimo_curves(curves_of(s, 12)),
    "but got 11 and 12 images": lambda s: plotting.plot_pimo_curves(curves_of(s, 1), s.result),
    "an anomalous image among 12, but got none": lambda s: plotting.plot_pimo_curves(s.curves, s.result, []),
    "among 12, but got 0": lambda s: plotting.plot_pimo_curves(s.curves, s.result, images=[4, 0]),
    "among 12, but got -1": lambda s: plotting.plot_pimo_curves(s.curves, s.result, images=[-1]),
    "`images` to hold at least one image": lambda s: plot_heatmaps([], [], s.result),
    "`masks` to hold one item for each of 2 images, but got 12": lambda s: plot_two(s, s.maps),
    "`mask` and `anomaly_map` to be of one height and width, but got": lambda s: plot_two(s, s.maps[:2, 1:]),
    "`anomaly_map` to be of shape (H, W), but got (12, 32": lambda s: plot_heatmap(s.maps[0], s.maps, s.result),
    "`anomaly_map` to hold pixels": lambda s: plot_heatmap(torch.zeros(0, 0), torch.zeros(0, 0), s.result),
    "one of 12 images, but got 12": lambda s: plot_heatmap(s.maps[0], s.maps[0], s.result, index=12),
    "floating": lambda s: plot_heatmap(torch.zeros(4, 4), torch.zeros(4, 4).long(), s.result),
    "`ranking` to hold models": lambda _: plot_ranks(statistics.ModelRanking((), {}, {}, {}, 1, 1, 0.05, 0)),
    "`comparison` to hold models": lambda _: plot_confidence(replace(two_models(0.5), order=(), confidence={})),
}


def curves_of(scored: Scored, first: int) -> PIMOResult:
    """The curves without those of the first images."""
    return scored.curves._replace(per_image_tprs=scored.curves.per_image_tprs[first:])


def plot_two(scored: Scored, masks: torch.Tensor) -> Any:
    """Plot two heat maps with these masks."""
    return plot_heatmaps(scored.maps[:2], scored.maps[:2], scored.result, masks)


@pytest.mark.parametrize("reason", WRONG)
def test_what_cannot_be_drawn_is_named(reason: str, scored: Scored) -> None:
    """Each function refuses what does not fit and to draw nothing, names the argument, and leaves no figure."""
    with pytest.raises((ValueError, TypeError), match=re.escape(reason)):
        WRONG[reason](scored)
    assert plt.get_fignums() == []
