"""The page of a comparison: anomalous images as each model sees them, side by side.

Maps and images of a model are those that `aupimo evaluate --out` scored: its `summary.json` says where they are. Images
are read one at a time while the page is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._extras import progress
from aupimo_torchmetrics._html.page import Card, Page, Row, Table, Value, write_page
from aupimo_torchmetrics._html.views import Model, View, characters_for_each, view_image
from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.compare.tables import csv_rows, title
from aupimo_torchmetrics.evaluate.page import EvaluatedImage, find_evaluated_images, summary_of
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._matching import align_scores
from aupimo_torchmetrics.statistics.paired import confidence_text

if TYPE_CHECKING:
    from aupimo_torchmetrics.compare.comparison import Comparison

__all__ = ["write_comparison_page"]


HEADINGS = {
    "mean": "Mean AUPIMO",
    "std": "Standard deviation over seeds",
    "num_seeds": "Seeds",
    "interval_lower": "95 % interval from",
    "interval_upper": "to",
    "num_images": "Images",
}
"""Headings of columns by the names of `comparison.csv`, as far as these would not do."""
CONFIDENCE = "confidence_against_"
"""How the names of all other columns there begin."""

Sources = dict[tuple[str, str], dict[str, EvaluatedImage]]
"""Images that were evaluated, by category and model, as far as they are known, and by their paths."""


class _Image(NamedTuple):
    """An anomalous image."""

    card: Card
    """How it is shown, without views yet."""
    scores: dict[str, float]
    """AUPIMO by the name of the model."""
    known: dict[str, tuple[int, EvaluatedImage]]
    """Its index in the result, and the image itself, of each model of which these are known."""


def write_comparison_page(path: Path, comparison: Comparison, *, quiet: bool) -> None:
    """Write the page of a comparison.

    Args:
        path: File to write.
        comparison: What it shows.
        quiet: Whether to show no progress bar.

    Raises:
        OSError: If the file cannot be written.

    """
    settings = comparison.to_dict()["settings"]
    sources, missing = _find_sources(comparison)
    images = [image for category in comparison.results for image in _images_of(category, comparison, sources)]
    max_characters = characters_for_each(sum(len(image.known) for image in images))
    with progress(images, path.name, "image", quiet=quiet) as shown:
        page = Page(
            title=f"Comparison of {len(comparison.order)} models: {title(comparison)}",
            quote="",
            table=_table(comparison),
            notes=list(filter(None, [*comparison.notes(), *missing])),
            drawings={_title_of(name): draw for name, draw in comparison.pictures().items()},
            facts={name: str(value) for name, value in settings.items()} | {"version": __version__},
            warnings=list(comparison.warnings),
            skipped=list(filter(None, [comparison.skipped])),
            fpr_bounds=settings["fpr_bounds"],
            categories=list(filter(None, comparison.results)),
            defects=sorted({image.card.defect for image in images} - {""}),
            cards=_cards(shown, comparison, sources, max_characters),
            is_comparison=True,
        )
        write_page(path, page)


def _title_of(picture: str) -> str:
    """Title of a picture, whose name is `confidence` or `CATEGORY/confidence`."""
    *category, kind = picture.rsplit("/", 1)
    return ": ".join([kind.capitalize(), *category])


def _find_sources(comparison: Comparison) -> tuple[Sources, list[str]]:
    """Find images and maps of the models, and say of which there are none."""
    find, sources, missing = cache(find_evaluated_images), Sources(), dict[str, None]()
    for category, by_model in comparison.results.items():
        for model in by_model:
            file = comparison.files[category].get(model)
            if file is None:
                missing[f"No pictures of {model}: a model with seeds has several maps of an image"] = None
                continue
            try:
                sources[category, model] = find(summary_of(file))
            except (BadDataError, OSError) as error:
                missing[f"No pictures of {model}: {error}"] = None
    return sources, list(missing)


def _images_of(category: str, comparison: Comparison, sources: Sources) -> list[_Image]:
    """Anomalous images of a category, those on which the models differ most first."""
    results = comparison.results[category]
    (first_name, first), *_ = results.items()
    aligned = align_scores(results)
    paths = {name: result.paths for name, result in results.items() if aligned.matched_by == "path" and result.paths}
    images = []
    for place in np.flatnonzero(~np.isnan(aligned.scores[first_name])).tolist():
        known = {}
        for name, own_paths in paths.items():
            index = aligned.orders[name][place]
            found = sources.get((category, name), {}).get(own_paths[index])
            if found is not None:
                known[name] = (index, found)
        scores = {name: float(each[place]) for name, each in aligned.scores.items()}
        difference = max(scores.values()) - min(scores.values())
        defect = next((each.defect for _, each in known.values() if each.defect), "")
        card = Card(
            name=paths[first_name][place] if paths else f"image {place}",
            category=category,
            defect=defect,
            num_mask_pixels=None if first.mask_sizes is None else int(first.mask_sizes[place]),
            sort_value=difference,
            facts=list(filter(None, [f"difference {difference:.4f}", category, defect])),
            views=[],
        )
        images.append(_Image(card, scores, known))
    return sorted(images, key=lambda image: -image.card.sort_value)


def _cards(images: Iterable[_Image], comparison: Comparison, sources: Sources, max_characters: float) -> Iterator[Card]:
    """Read images one by one, and show what each model finds in them."""
    for category, group in groupby(images, key=lambda image: image.card.category):
        models, notes = dict[str, Model](), dict[str, str]()
        for name in comparison.order:
            if (category, name) in sources:
                try:
                    models[name] = Model.of(name, AUPIMOResult.load(comparison.files[category][name]))
                except (ValueError, OSError) as error:
                    notes[name] = f"No picture: {error}"
        for image in group:
            views = []
            for name in comparison.order:
                if name in models and name in image.known:
                    index, evaluated = image.known[name]
                    views.append(view_image(models[name], index, evaluated.read, max_characters))
                else:
                    views.append(View(name, image.scores[name], notes.get(name, "")))
            yield image.card._replace(views=views)


def _table(comparison: Comparison) -> Table:
    """Rows of the models in each category, without columns that are empty."""
    rows = list(csv_rows(comparison))
    columns = {name: [_value(name, row[name]) for row in rows] for name in rows[0]}
    known = {name: values for name, values in columns.items() if any(value not in {None, ""} for value in values)}
    shown = [Row([known[name][index] for name in known], row["category"]) for index, row in enumerate(rows)]
    return Table("A click on a heading sorts.", [_heading(name) for name in known], shown, [], digits=3)


def _heading(column: str) -> str:
    """Heading of a column of `comparison.csv`."""
    if column.startswith(CONFIDENCE):
        return f"Confidence against {column.removeprefix(CONFIDENCE)}"
    return HEADINGS.get(column, column.replace("_", " ").capitalize())


def _value(column: str, value: Value) -> Value:
    """Value of a column, with a confidence rounded down and None for NaN."""
    if not isinstance(value, float):
        return value
    if math.isnan(value):
        return None
    return float(confidence_text(value)) if column.startswith(CONFIDENCE) else value
