"""The page of an evaluation: its scores, and every anomalous image with what was found in it.

Images are read one at a time while the page is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._extras import progress
from aupimo_torchmetrics._html.page import Card, Page, Row, Table, write_page
from aupimo_torchmetrics._html.views import ImageContent, Model, View, characters_for_each, view_image
from aupimo_torchmetrics._tables import metric_title
from aupimo_torchmetrics.evaluate.at_threshold import RATES, threshold_text
from aupimo_torchmetrics.evaluate.bad_files import bad_file_lines
from aupimo_torchmetrics.evaluate.evaluation import CategoryScores, Evaluation, interval_texts
from aupimo_torchmetrics.evaluate.find import find_pairs
from aupimo_torchmetrics.evaluate.masks import MaskRule
from aupimo_torchmetrics.evaluate.output import SUMMARY_FILE, draw_curves, draw_scores
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.evaluate.reading import PairReader, photograph
from aupimo_torchmetrics.evaluate.slider import slider_fprs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EvaluatedImage", "find_evaluated_images", "summary_of", "write_evaluation_page"]

NUM_NORMAL = 24
"""Normal images on the page."""


class _Image(NamedTuple):
    """An image that the page may show."""

    card: Card
    """How it is shown, without a view yet."""
    share_of_false_positives: float
    """Share of the pixels that are called anomalous at the upper FPR bound; 0 for an anomalous image."""
    view: Callable[[float], View]
    """Reads the image, and draws it within a number of characters."""


class EvaluatedImage(NamedTuple):
    """An image of an earlier evaluation."""

    defect: str
    """Type of its defect; empty if it is not known."""
    read: Callable[[], ImageContent]
    """Reads it with its map and mask."""
    thresholds: list[float]
    """Those of the slider in its category, ascending; empty if the evaluation did not know any."""


def summary_of(file: Path) -> Path:
    """Return the `summary.json` of the evaluation that wrote a result file; raise if there is none."""
    for folder in file.absolute().parents[1:3]:
        if (folder / SUMMARY_FILE).is_file():
            return folder / SUMMARY_FILE
    raise BadDataError(f"there is no {SUMMARY_FILE} of `aupimo evaluate --out` above {file}")


def find_evaluated_images(summary: Path) -> dict[str, EvaluatedImage]:
    """Find the images of an earlier evaluation anew. Relative paths are those of the current folder.

    Args:
        summary: File `summary.json`, which says what was evaluated.

    Returns:
        The images that have a map, by their paths there.

    Raises:
        BadDataError: If the file does not say it, or they are no longer there.
        OSError: If the file cannot be opened.

    """
    names = ("maps", "data", "table", "layout", "map_suffix", "normal_folder", "follow_links")
    try:
        content = json.loads(summary.read_text(encoding="utf-8"))
        settings = content["settings"]
        found = find_pairs(**{name: settings[name] for name in names}, split=settings.get("split", ()))
        mask_rule = MaskRule(settings["mask_threshold"], settings["ignore_index"])
        size = settings.get("size") and (settings["size"][0], settings["size"][1])  # earlier versions knew none
        reader = PairReader(found.maps, settings["resize"], mask_rule, size=size)
        thresholds = {
            each["category"]: [math.inf if number is None else float(number) for number in each["slider_thresholds"]]
            for each in content["categories"]
        }
    except (ValueError, TypeError, KeyError) as error:
        raise BadDataError(f"{summary} does not lead to images and maps, please evaluate again: {error}") from error
    return {
        pair.image.name: EvaluatedImage(pair.image.defect or "", partial(_read, reader, pair), of_slider)
        for pair in found.pairs
        if (of_slider := thresholds.get(pair.image.category)) is not None
    }


def write_evaluation_page(path: Path, evaluation: Evaluation, *, quiet: bool) -> None:
    """Write the page of one or more categories.

    Args:
        path: File to write.
        evaluation: What it shows.
        quiet: Whether to show no progress bar.

    Raises:
        OSError: If the file cannot be written.

    """
    categories, summary = evaluation.categories, evaluation.to_dict()
    images = [image for scores in categories for image in _images_of(scores, evaluation.reader)]
    anomalous = [image for image in images if image.card.num_mask_pixels]
    anomalous.sort(key=lambda image: (math.isnan(image.card.sort_value), image.card.sort_value, image.card.peak))
    alarming = [image for image in images if image.share_of_false_positives > 0]
    normal = sorted(alarming, key=lambda image: -image.share_of_false_positives)[:NUM_NORMAL]
    names = [scores.category for scores in categories]
    bounds, has_chosen = categories[0].result.fpr_bounds, categories[0].threshold is not None
    fprs = slider_fprs(bounds)
    max_characters = characters_for_each(len(anomalous) + len(normal))
    with progress([*anomalous, *normal], path.name, "image", quiet=quiet) as shown:
        cards = (image.card._replace(views=[image.view(max_characters)]) for image in shown)
        page = Page(
            title=f"AUPIMO of {names[0] if len(names) == 1 else f'{len(names)} categories'}",
            quote=categories[0].result.protocol,
            tables=[_table(evaluation), *([_table_at_threshold(evaluation)] if has_chosen else [])],
            notes=[*evaluation.protocols.values(), *evaluation.note_lines()],
            drawings=_drawings(categories),
            facts={name: str(value) for name, value in (summary["settings"] | summary["versions"]).items()},
            warnings=evaluation.warning_lines(),
            skipped=bad_file_lines(evaluation.bad_files),
            fprs=fprs,
            start=fprs.index(bounds[1]),
            categories=names,
            defects=sorted({image.card.defect for image in anomalous} - {""}),
            cards=islice(cards, len(anomalous)),
            normal_cards=cards if normal else None,  # what is left of them then
            has_chosen=has_chosen,
        )
        write_page(path, page)


def _images_of(scores: CategoryScores, reader: PairReader) -> Iterator[_Image]:
    """Images of a category."""
    model = Model.of("", scores.result, scores.slider_thresholds, scores.threshold)
    known = zip(scores.pairs, scores.images, model.num_false_positives, strict=True)
    for index, (pair, image, num_found) in enumerate(known):
        share = num_found / image["num_pixels"]
        facts = [image["category"], f"{num_found:,} pixels falsely found ({share:.3%})"]
        if image["is_anomalous"]:
            mask = f"mask {image['mask_pixels']:,} pixels ({image['mask_share']:.2%})"
            facts = [f"AUPIMO {image['aupimo']:.4f}", image["category"], image["defect"], mask]
        if scores.threshold is not None:
            found = f"{image['found_share']:.1%} found, " if image["is_anomalous"] else ""
            found += f"{image['false_pixels']:,} pixels falsely found"
            facts.append(f"at {threshold_text(scores.threshold)}: {found}")
        card = Card(
            name=image["path"],
            category=image["category"],
            defect=image["defect"],
            num_mask_pixels=image["mask_pixels"],
            sort_value=image["aupimo"],
            peak=image["mask_max_score"],
            facts=list(filter(None, facts)),
            views=[],
        )
        yield _Image(card, share, partial(view_image, model, index, partial(_read, reader, pair)))


def _read(reader: PairReader, pair: Pair) -> ImageContent:
    """Read an image with its map and mask."""
    loaded = reader.read(pair)
    grey, note = photograph(loaded)
    return ImageContent(grey, loaded.anomaly_map, loaded.mask, loaded.is_counted, note)


def _table(evaluation: Evaluation) -> Table:
    """Rows of the categories and of their types of defects."""
    means, rows = evaluation.means(), []
    with_intervals = list(means) if evaluation.categories[0].intervals else []
    columns = (*means, "num_normal", "num_anomalous")
    for scores in evaluation.categories:
        category, totals = scores.category, map(scores.totals().get, columns)
        intervals = _unbroken(interval_texts(scores.intervals, with_intervals))
        rows.append(Row([category, "(all)", *totals, *intervals], category))
        for row in scores.defects():
            defect, values = row["defect"], [row.get(column, math.nan) for column in columns]
            # Images of no known type cannot be told apart.
            shown = [category, defect or "(not known)", *values, *[""] * len(intervals)]
            rows.append(Row(shown, category if defect else "", defect))
    mean = [f"{value:.4f} ({number} categories)" for value, number in means.values()]
    mean += ["", "", *_unbroken(interval_texts(evaluation.mean_intervals, with_intervals))]
    intervals = [f"{metric_title(name)}, 95 %" for name in with_intervals]
    titles = [*map(metric_title, means), "Normal", "Anomalous", *intervals]
    return Table(
        caption="A click on a heading sorts. AUPIMO is the mean of the anomalous images.",
        head=["Category", "Type of defect", *titles],
        rows=rows,
        foot=["Mean", "", *mean] if len(evaluation.categories) > 1 else [],
        digits=4,
    )


def _unbroken(texts: Sequence[str]) -> list[str]:
    """Texts that stay on one line."""
    return [text.replace(" ", "\N{NO-BREAK SPACE}") for text in texts]


def _table_at_threshold(evaluation: Evaluation) -> Table:
    """What the thresholds do."""
    of_categories = [(scores, scores.at_threshold()) for scores in evaluation.categories]
    return Table(
        caption="At the threshold: rates of all pixels and of images, and images of either class with an alarm.",
        head=["Category", "Threshold", *map(metric_title, RATES), "Normal with alarm", "Anomalous with alarm"],
        rows=[
            Row([each.category, threshold_text(rates["threshold"]), *map(rates.get, RATES), *each.alarm_counts()])
            for each, rates in of_categories
        ],
        foot=[],
        digits=4,
    )


def _drawings(categories: Sequence[CategoryScores]) -> Mapping[str, Callable[[], Figure]]:
    """Distribution of all scores, and the curves of each category, as far as there are scores."""
    scored = {scores.category: scores for scores in categories if not bool(scores.result.aupimos.isnan().all())}
    if not scored:
        return {}
    drawings = {"Distribution of the scores": partial(draw_scores, scored)}
    return drawings | {f"PIMO curves of {name}": partial(draw_curves, each.result) for name, each in scored.items()}
