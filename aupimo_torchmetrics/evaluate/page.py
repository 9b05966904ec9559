"""The page of an evaluation: its scores, and every anomalous image with what was found in it.

Images are read one at a time while the page is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from aupimo_torchmetrics._html.page import (
    Card,
    Cell,
    Drawing,
    ModelView,
    Page,
    Row,
    Table,
    characters_for_each,
    drawing_of,
    fprs_between,
    thresholds_of,
    write_page,
)
from aupimo_torchmetrics._html.pictures import ImageContent, view_image
from aupimo_torchmetrics.evaluate.bad_files import BadFileError
from aupimo_torchmetrics.evaluate.category import CategoryScores, metric_title
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.evaluate.reading import LoadedPair, PairReader, photograph
from aupimo_torchmetrics.plotting import plot_distribution, plot_pimo_curves
from aupimo_torchmetrics.plotting._figures import CURVES_SIZE, distribution_size, figure_without_pyplot
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Model", "PageTexts", "make_model", "model_view", "write_evaluation_page"]

NUM_NORMAL = 24
"""Normal images on the page."""
MAX_DIFFERENCE = 1e-6
"""A score that differs by more from that of a map is not of this map."""


class PageTexts(NamedTuple):
    """What the page says of all categories together."""

    means: dict[str, tuple[float, int]]
    """Mean of each metric over the categories in which it is defined, and their number."""
    notes: list[str]
    warnings: list[str]
    skipped: list[str]
    facts: dict[str, str]
    """Settings and versions by name."""


class _Image(NamedTuple):
    """An image that the page shows."""

    scores: CategoryScores
    place: int
    """Index of the image in its category."""
    row: dict[str, Any]
    """What is known of it, as `CategoryScores.image_rows` says it."""
    num_false_positives: int
    """Pixels of a normal image that are called anomalous at the upper FPR bound; 0 for an anomalous image."""


class Model(NamedTuple):
    """A model, and what its view of an image is made of."""

    name: str
    """Empty if there is only one model."""
    result: AUPIMOResult
    reader: PairReader
    """Reads its maps."""
    thresholds: list[float]
    """At the steps of the slider; empty if they are not known."""
    num_false_positives: list[int]
    """(N,) pixels of each normal image that are called anomalous at the upper FPR bound; 0 for an anomalous one."""


def write_evaluation_page(
    path: Path,
    categories: Sequence[CategoryScores],
    texts: PageTexts,
    reader: PairReader,
    bar: tqdm[Any],
) -> None:
    """Write the page of one or more categories.

    Args:
        path: File to write.
        categories: Scores of each category.
        texts: What the page says beside the scores of categories and images.
        reader: Reads maps, masks and images.
        bar: Progress bar, which counts images.

    Raises:
        OSError: If the file cannot be written.

    """
    images = [image for scores in categories for image in _images_of(scores)]
    anomalous = sorted((image for image in images if image.row["is_anomalous"]), key=_score_order)
    alarming = (image for image in images if image.num_false_positives > 0)
    normal = sorted(alarming, key=_share_of_false_positives, reverse=True)[:NUM_NORMAL]
    models = {scores.category: make_model("", scores.result, reader) for scores in categories}
    max_characters = characters_for_each(len(anomalous) + len(normal))
    bar.reset(total=len(anomalous) + len(normal))

    def cards(chosen: Sequence[_Image]) -> Iterator[Card]:
        for image in chosen:
            yield _card(image, models[image.scores.category], max_characters)
            bar.update()

    names = [scores.category for scores in categories]
    page = Page(
        title=f"AUPIMO of {names[0] if len(names) == 1 else f'{len(names)} categories'}",
        quote=categories[0].result.protocol,
        tables=[_table(categories, texts.means)],
        notes=texts.notes,
        drawings=_drawings(categories),
        facts=texts.facts,
        warnings=texts.warnings,
        skipped=texts.skipped,
        fprs=fprs_between(categories[0].result.fpr_bounds),
        sort_name="AUPIMO",
        categories=names,
        defects=sorted({image.row["defect"] for image in anomalous} - {None}),
        cards=cards(anomalous),
        normal_cards=cards(normal),
        has_normal_cards=bool(normal),
    )
    write_page(path, page)


def _images_of(scores: CategoryScores) -> list[_Image]:
    """Images of a category."""
    rows = scores.image_rows()
    return [
        _Image(scores, place, *each)
        for place, each in enumerate(zip(rows, _num_false_positives(scores.result), strict=True))
    ]


def _score_order(image: _Image) -> tuple[bool, float]:
    """Order in which the worst image comes first, and one without a score last."""
    return math.isnan(image.row["aupimo"]), image.row["aupimo"]


def _share_of_false_positives(image: _Image) -> float:
    """Share of the pixels of a normal image that are called anomalous."""
    return image.num_false_positives / float(image.row["num_pixels"])


def _num_false_positives(result: AUPIMOResult) -> list[int]:
    """(N,) how many pixels of each normal image are called anomalous at the upper FPR bound; 0 for an anomalous one."""
    scored, threshold = result._scoring, result.threshold_bounds[0]  # noqa: SLF001
    if scored is None or math.isnan(threshold):
        return [0] * len(result.aupimos)
    images = scored.kept.image_of_normal_score()[scored.kept.normal_scores >= threshold]
    return [int(number) for number in torch.bincount(images, minlength=len(result.aupimos))]


def _card(image: _Image, model: Model, max_characters: float) -> Card:
    """Read an image, and say what was found in it."""
    row = image.row
    if row["is_anomalous"]:
        mask = f"mask {row['mask_pixels']:,} pixels ({row['mask_share']:.2%})"
        facts = [f"AUPIMO {row['aupimo']:.4f}", row["category"], row["defect"], mask]
    else:
        share = _share_of_false_positives(image)
        facts = [row["category"], f"{image.num_false_positives:,} pixels falsely found ({share:.3%})"]
    return Card(
        name=row["path"],
        category=row["category"],
        defect=row["defect"] or "",
        num_mask_pixels=row["mask_pixels"],
        sort_value=row["aupimo"],
        facts=[fact for fact in facts if fact],
        views=[model_view(model, image.place, image.scores.pairs[image.place], max_characters)],
    )


def make_model(name: str, result: AUPIMOResult, reader: PairReader) -> Model:
    """Return a model with the thresholds of the slider."""
    return Model(name, result, reader, thresholds_of(result), _num_false_positives(result))


def model_view(model: Model, index: int, pair: Pair, max_characters: float) -> ModelView:
    """Read one image, and make the pictures of what a model finds in it.

    Args:
        model: The model.
        index: Index of the image in the result.
        pair: The image and its map.
        max_characters: How many characters the pictures may take.

    Returns:
        The view. If map or image cannot be read any longer, or are not those that were scored, it says so.

    """
    view = ModelView(model.name, float(model.result.aupimos[index]), model.thresholds, None)
    if not model.thresholds:
        return view._replace(note="No picture, as no threshold is known.")
    try:
        loaded = model.reader.read(pair)
    except (BadFileError, OSError) as error:
        return view._replace(note=f"No picture: {error}")
    if not _is_as_scored(model, index, loaded):
        return view._replace(note="No picture: map or mask are not those that were scored.")
    grey, note = photograph(loaded)
    content = ImageContent(grey, loaded.anomaly_map, loaded.mask, loaded.ignored)
    return view._replace(view=view_image(content, model.result, model.thresholds, max_characters), note=note)


def _is_as_scored(model: Model, index: int, loaded: LoadedPair) -> bool:
    """Whether an image has the score, or on a normal image the false positives, that its map and mask lead to."""
    table = model.result._known().table  # noqa: SLF001  of the same package
    anomaly_map, score = loaded.anomaly_map.to(table.scores), float(model.result.aupimos[index])
    if not bool(loaded.mask.any()):
        is_found = anomaly_map >= model.result.threshold_bounds[0]
        num_found = int((is_found if loaded.ignored is None else is_found & ~loaded.ignored).sum())
        return math.isnan(score) and num_found == model.num_false_positives[index]
    shares = table.look_up(anomaly_map[loaded.mask])
    return abs(float(shares.mean().clamp(0, 1)) - score) < MAX_DIFFERENCE  # False for NaN


def _table(categories: Sequence[CategoryScores], means: Mapping[str, tuple[float, int]]) -> Table:
    """Rows of the categories and of their types of defects."""
    rows = []
    for scores in categories:
        values = [_score_cell(value) for value in scores.values().values()]
        counts = [_count_cell(scores.num_normal), _count_cell(scores.num_anomalous)]
        rows.append(Row([Cell(scores.category), Cell("(all)"), *counts, *values], scores.category))
        for defect in scores.defects():
            counts = [_count_cell(defect.num_normal), _count_cell(defect.num_anomalous)]
            cells = [Cell(scores.category), Cell(defect.defect or "(not known)"), *counts, _score_cell(defect.aupimo)]
            cells += [Cell("", math.nan)] * (len(values) - 1)
            rows.append(Row(cells, scores.category if defect.defect else None, defect.defect or ""))
    mean = [f"{value:.4f} ({number} categories)" for value, number in means.values()]
    return Table(
        caption="A click on a heading sorts. AUPIMO is the mean of the anomalous images.",
        head=["Category", "Type of defect", "Normal", "Anomalous", *map(metric_title, means)],
        rows=rows,
        foot=[["Mean", "", "", "", *mean]] if len(categories) > 1 else [],
    )


def _score_cell(value: float) -> Cell:
    """Cell of a score."""
    return Cell(f"{value:.4f}", value)


def _count_cell(number: int) -> Cell:
    """Cell of a number of images."""
    return Cell(str(number), float(number))


def _drawings(categories: Sequence[CategoryScores]) -> Iterator[Drawing]:
    """Distribution of all scores, and the curves of each category, as far as there are scores."""
    results = {scores.category: scores.result for scores in categories if not bool(scores.result.aupimos.isnan().all())}
    if not results:
        return
    figure = figure_without_pyplot(distribution_size(len(results)))
    plot_distribution(results, figure.subplots())
    yield drawing_of(figure, "Distribution of the scores", is_open=True)
    for category, result in results.items():
        figure = figure_without_pyplot(CURVES_SIZE)
        plot_pimo_curves(result.curves(), result, ax=figure.subplots())
        yield drawing_of(figure, f"PIMO curves of {category}", is_open=len(results) == 1)
