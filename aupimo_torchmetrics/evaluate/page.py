"""The page of an evaluation: its scores, and every anomalous image with what was found in it.

Images are read one at a time while the page is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._html.page import Card, Page, Row, Table, Value, write_page
from aupimo_torchmetrics._html.views import ImageContent, Model, characters_for_each, view_image
from aupimo_torchmetrics.evaluate.category import CategoryScores, metric_title
from aupimo_torchmetrics.evaluate.find import find_evaluated_pairs
from aupimo_torchmetrics.evaluate.output import SUMMARY_FILE
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.evaluate.reading import PairReader, photograph
from aupimo_torchmetrics.plotting import plot_distribution, plot_pimo_curves
from aupimo_torchmetrics.plotting._figures import CURVES_SIZE, distribution_size, drawn_off_screen
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from tqdm import tqdm

__all__ = ["EvaluatedImage", "PageTexts", "find_evaluated_images", "summary_of", "write_evaluation_page"]

NUM_NORMAL = 24
"""Normal images on the page."""


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


class EvaluatedImage(NamedTuple):
    """An image of an earlier evaluation."""

    defect: str
    """Type of its defect; empty if it is not known."""
    read: Callable[[], ImageContent]
    """Reads it with its map and mask."""


def summary_of(file: Path) -> Path:
    """Return the `summary.json` of the evaluation that wrote a result file; raise if there is none."""
    for folder in file.absolute().parents[1:3]:
        if (folder / SUMMARY_FILE).is_file():
            return folder / SUMMARY_FILE
    raise BadDataError(f"there is no {SUMMARY_FILE} of `aupimo evaluate --out` above {file}")


def find_evaluated_images(summary: Path) -> dict[str, EvaluatedImage]:
    """Find the images of an earlier evaluation, by their paths there; raise unless they are where it saw them."""
    reader, pairs = find_evaluated_pairs(summary)
    return {path: EvaluatedImage(pair.image.defect or "", partial(_read, reader, pair)) for path, pair in pairs.items()}


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
    models = {scores.category: Model.of("", scores.result) for scores in categories}
    images = [image for scores in categories for image in _images_of(scores, models[scores.category])]
    anomalous = sorted((image for image in images if image.row["is_anomalous"]), key=_score_order)
    alarming = (image for image in images if image.num_false_positives > 0)
    normal = sorted(alarming, key=_share_of_false_positives, reverse=True)[:NUM_NORMAL]
    max_characters = characters_for_each(len(anomalous) + len(normal))
    bar.reset(total=len(anomalous) + len(normal))

    def cards(chosen: Sequence[_Image]) -> Iterator[Card]:
        for image in chosen:
            yield _card(image, models[image.scores.category], reader, max_characters)
            bar.update()

    names = [scores.category for scores in categories]
    page = Page(
        title=f"AUPIMO of {names[0] if len(names) == 1 else f'{len(names)} categories'}",
        quote=categories[0].result.protocol,
        table=_table(categories, texts.means),
        notes=texts.notes,
        drawings=_drawings(categories),
        facts=texts.facts,
        warnings=texts.warnings,
        skipped=texts.skipped,
        fpr_bounds=categories[0].result.fpr_bounds,
        categories=names,
        defects=sorted({image.row["defect"] for image in anomalous} - {None}),
        cards=cards(anomalous),
        normal_cards=cards(normal) if normal else None,
    )
    write_page(path, page)


def _images_of(scores: CategoryScores, model: Model) -> list[_Image]:
    """Images of a category."""
    facts = zip(scores.image_rows(), model.num_false_positives, strict=True)
    return [_Image(scores, place, *each) for place, each in enumerate(facts)]


def _read(reader: PairReader, pair: Pair) -> ImageContent:
    """Read an image with its map and mask."""
    loaded = reader.read(pair)
    grey, note = photograph(loaded)
    return ImageContent(grey, loaded.anomaly_map, loaded.mask, loaded.ignored, note)


def _score_order(image: _Image) -> tuple[bool, float]:
    """Order in which the worst image comes first, and one without a score last."""
    return math.isnan(image.row["aupimo"]), image.row["aupimo"]


def _share_of_false_positives(image: _Image) -> float:
    """Share of the pixels of a normal image that are called anomalous."""
    return image.num_false_positives / float(image.row["num_pixels"])


def _card(image: _Image, model: Model, reader: PairReader, max_characters: float) -> Card:
    """Read an image, and say what was found in it."""
    row = image.row
    if row["is_anomalous"]:
        mask = f"mask {row['mask_pixels']:,} pixels ({row['mask_share']:.2%})"
        facts = [f"AUPIMO {row['aupimo']:.4f}", row["category"], row["defect"], mask]
    else:
        share = _share_of_false_positives(image)
        facts = [row["category"], f"{image.num_false_positives:,} pixels falsely found ({share:.3%})"]
    read = partial(_read, reader, image.scores.pairs[image.place])
    return Card(
        name=row["path"],
        category=row["category"],
        defect=row["defect"] or "",
        num_mask_pixels=row["mask_pixels"],
        sort_value=row["aupimo"],
        facts=[fact for fact in facts if fact],
        views=[view_image(model, image.place, read, max_characters)],
    )


def _table(categories: Sequence[CategoryScores], means: Mapping[str, tuple[float, int]]) -> Table:
    """Rows of the categories and of their types of defects."""
    rows = []
    for scores in categories:
        values = list(scores.values().values())
        counts = [scores.num_normal, scores.num_anomalous]
        rows.append(Row([scores.category, "(all)", *counts, *values], scores.category))
        for defect, num_normal, num_anomalous, aupimo in scores.defects():
            known: list[Value] = [scores.category, defect or "(not known)", num_normal, num_anomalous, aupimo]
            others = [math.nan] * (len(values) - 1)  # only AUPIMO is a score of images
            rows.append(Row([*known, *others], scores.category if defect else "", defect or ""))
    mean = [f"{value:.4f} ({number} categories)" for value, number in means.values()]
    return Table(
        caption="A click on a heading sorts. AUPIMO is the mean of the anomalous images.",
        head=["Category", "Type of defect", "Normal", "Anomalous", *map(metric_title, means)],
        rows=rows,
        foot=["Mean", "", "", "", *mean] if len(categories) > 1 else [],
        digits=4,
    )


def _drawings(categories: Sequence[CategoryScores]) -> dict[str, Callable[[], Figure]]:
    """Distribution of all scores, and the curves of each category, as far as there are scores."""
    results = {scores.category: scores.result for scores in categories if not bool(scores.result.aupimos.isnan().all())}
    if not results:
        return {}
    distribution = partial(drawn_off_screen, distribution_size(len(results)), plot_distribution, results)
    drawings: dict[str, Callable[[], Figure]] = {"Distribution of the scores": distribution}
    for category, result in results.items():
        drawings[f"PIMO curves of {category}"] = partial(_curves, result)
    return drawings


def _curves(result: AUPIMOResult) -> Figure:
    """Draw the curves of a category, which are computed no sooner."""
    return drawn_off_screen(CURVES_SIZE, plot_pimo_curves, result.curves(), result)
