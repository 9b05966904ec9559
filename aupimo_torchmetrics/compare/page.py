"""The page of a comparison: anomalous images as each model sees them, side by side.

Maps and images of a model are those that `aupimo evaluate --out` scored: its `summary.json` says where they are. Images
are read one at a time while the page is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby, starmap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._extras import progress
from aupimo_torchmetrics._html.page import Card, Page, Row, Table, write_page
from aupimo_torchmetrics._html.views import Model, View, characters_for_each, view_image
from aupimo_torchmetrics._version import __version__
from aupimo_torchmetrics.compare.find import NO_SEED
from aupimo_torchmetrics.compare.tables import title
from aupimo_torchmetrics.evaluate.page import EvaluatedImage, find_evaluated_images, summary_of
from aupimo_torchmetrics.evaluate.slider import slider_fprs
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._matching import align_scores
from aupimo_torchmetrics.statistics.paired import confidence_text

if TYPE_CHECKING:
    from aupimo_torchmetrics.compare.comparison import Comparison

__all__ = ["write_comparison_page"]


Sources = dict[tuple[str, str], dict[str, EvaluatedImage]]
"""Images that were evaluated, by category and model, as far as they are known, and by their paths."""


class _Image(NamedTuple):
    """An anomalous image."""

    card: Card
    """How it is shown, with scores in place of pictures."""
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
    fprs = slider_fprs(settings["fpr_bounds"])
    sources, missing = _find_sources(comparison)
    images = [image for category in comparison.results for image in _images_of(category, comparison, sources)]
    with progress(images, path.name, "image", quiet=quiet) as shown:
        page = Page(
            title=f"Comparison of {len(comparison.order)} models: {title(comparison)}",
            quote="",
            tables=[_table(comparison)],
            notes=[*comparison.notes(), *missing],
            drawings={name.replace("/", ": "): draw for name, draw in comparison.pictures().items()},
            facts={name: str(value) for name, value in settings.items()} | {"version": __version__},
            warnings=list(comparison.warnings),
            skipped=list(filter(None, [comparison.skipped])),
            fprs=fprs,
            start=fprs.index(settings["fpr_bounds"][1]),
            categories=list(filter(None, comparison.results)),
            defects=sorted({image.card.defect for image in images} - {""}),
            cards=_cards(shown, comparison, sources, characters_for_each(sum(len(image.known) for image in images))),
            is_comparison=True,
        )
        write_page(path, page)


def _find_sources(comparison: Comparison) -> tuple[Sources, list[str]]:
    """Find images and maps of the models, and say of which there are none."""
    find, sources, missing = cache(find_evaluated_images), Sources(), dict[str, None]()
    for category, by_model in comparison.results.items():
        for model in by_model:
            if NO_SEED in comparison.files[category][model]:
                try:
                    sources[category, model] = find(summary_of(comparison.files[category][model][NO_SEED]))
                except (BadDataError, OSError) as error:
                    missing[f"No pictures of {model}: {error}"] = None
            else:
                missing[f"No pictures of {model}: a model with seeds has several maps of an image"] = None
    return sources, list(missing)


def _images_of(category: str, comparison: Comparison, sources: Sources) -> list[_Image]:
    """Anomalous images of a category, those on which the models differ most first."""
    results = comparison.results[category]
    first, aligned = next(iter(results.values())), align_scores(results)
    images = []
    for place in first.aupimos.isfinite().nonzero().flatten().tolist():
        known = {}
        for name, result in results.items():
            index = aligned.orders[name][place]
            found = sources.get((category, name), {}).get(result.paths[index] if result.paths else "")
            if found is not None:
                known[name] = (index, found)
        scores = {name: float(aligned.scores[name][place]) for name in comparison.order}
        difference = max(scores.values()) - min(scores.values())
        defect = next((each.defect for _, each in known.values() if each.defect), "")
        card = Card(
            name=first.paths[place] if first.paths else f"image {place}",
            category=category,
            defect=defect,
            num_mask_pixels=None if first.mask_sizes is None else int(first.mask_sizes[place]),
            sort_value=difference,
            peak=math.nan,
            facts=list(filter(None, [f"difference {difference:.4f}", category, defect])),
            views=list(starmap(View, scores.items())),
        )
        images.append(_Image(card, known))
    return sorted(images, key=lambda image: -image.card.sort_value)


def _cards(images: Iterable[_Image], comparison: Comparison, sources: Sources, max_characters: float) -> Iterator[Card]:
    """Read images one by one, and show what each model finds in them."""
    for category, group in groupby(images, key=lambda image: image.card.category):
        models, notes = dict[str, Model](), dict[str, str]()
        for name in comparison.order:
            if (category, name) in sources:
                thresholds = next((image.thresholds for image in sources[category, name].values()), [])
                try:
                    result = AUPIMOResult.load(comparison.files[category][name][NO_SEED])
                    models[name] = Model.of(name, result, thresholds)
                except (ValueError, OSError) as error:
                    notes[name] = f"No picture: {error}"
        for image in group:
            views = []
            for view in image.card.views:
                if view.model in models and view.model in image.known:
                    index, evaluated = image.known[view.model]
                    views.append(view_image(models[view.model], index, evaluated.read, max_characters))
                else:
                    views.append(view._replace(note=notes.get(view.model, "")))
            yield image.card._replace(views=views)


def _table(comparison: Comparison) -> Table:
    """The columns of `comparison.csv` that are not empty, with confidences rounded down."""
    frame = comparison.to_dataframe()
    for column in frame.columns[frame.columns.str.startswith("confidence")]:
        frame[column] = [value if math.isnan(value) else float(confidence_text(value)) for value in frame[column]]
    categories = [*frame["category"]]
    for column in frame:  # pandas 2.2 warns of its own `replace`
        frame[column] = [math.nan if value == "" else value for value in frame[column]]
    shown = frame.dropna(axis="columns", how="all")
    rows = [Row(*each) for each in zip(shown.to_numpy().tolist(), categories, strict=True)]
    return Table("A click on a heading sorts.", list(shown), rows, [], digits=3)
