"""The page of a comparison: anomalous images as each model sees them, side by side.

Maps and images of a model are those that `aupimo evaluate --out` scored: its `summary.json` says where they are. Images
are read one at a time while the page is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._html.page import (
    Card,
    Cell,
    ModelView,
    Page,
    Row,
    Table,
    characters_for_each,
    drawing_of,
    fprs_between,
    write_page,
)
from aupimo_torchmetrics.compare._progress import progress
from aupimo_torchmetrics.evaluate.find import EvaluatedPairs, find_evaluated_pairs
from aupimo_torchmetrics.evaluate.output import SUMMARY_FILE
from aupimo_torchmetrics.evaluate.page import Model, make_model, model_view
from aupimo_torchmetrics.evaluate.pairing import Pair
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._matching import align_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PageContent", "write_comparison_page"]


HEADINGS = {
    "category": "Category",
    "model": "Model",
    "mean": "Mean AUPIMO",
    "std": "Standard deviation over seeds",
    "num_seeds": "Seeds",
    "average_rank": "Average rank",
    "interval_lower": "95 % interval from",
    "interval_upper": "to",
    "num_images": "Images",
}
"""Headings of columns by the names of `comparison.csv`."""


class PageContent(NamedTuple):
    """What a comparison has to say on a page."""

    title: str
    order: Sequence[str]
    """Names of the models, the best first."""
    results: Mapping[str, Mapping[str, AUPIMOResult]]
    """`results[category][model]`."""
    files: Mapping[str, Mapping[str, Path]]
    """Result file of each model without seeds, `files[category][model]`."""
    rows: list[dict[str, Any]]
    """A row for each model in each category."""
    figures: Mapping[str, Callable[[], Figure]]
    """What draws each picture, by its name."""
    notes: list[str]
    facts: dict[str, str]
    """Settings by name."""


class _Image(NamedTuple):
    """An anomalous image."""

    category: str
    name: str
    scores: dict[str, float]
    """AUPIMO by the name of the model."""
    indices: dict[str, int]
    """Index of the image in the result of each model; empty if images were not matched by their paths."""
    pairs: dict[str, Pair]
    """The image and its map, of each model of which these are known."""

    @property
    def difference(self) -> float:
        """How much the scores of the models differ at most."""
        return max(self.scores.values()) - min(self.scores.values())

    @property
    def defect(self) -> str:
        """Type of the defect; empty if it is not known."""
        return next((pair.image.defect for pair in self.pairs.values() if pair.image.defect), "")


Sources = dict[tuple[str, str], EvaluatedPairs]
"""Images and maps that were evaluated, by category and model, as far as they are known."""


def write_comparison_page(path: Path, content: PageContent, *, quiet: bool) -> None:
    """Write the page of a comparison.

    Args:
        path: File to write.
        content: What it says.
        quiet: Whether to show no progress bar.

    Raises:
        OSError: If the file cannot be written.

    """
    (first, *_) = next(iter(content.results.values())).values()
    sources, missing = _find_sources(content)
    images = [image for category in content.results for image in _images_of(category, content, sources)]
    max_characters = characters_for_each(sum(len(image.pairs) for image in images))
    is_open = len(content.figures) < 3
    with progress(images, path.name, "image", quiet=quiet) as shown:
        page = Page(
            title=content.title,
            quote="",
            tables=[_table(content)],
            notes=[*content.notes, *missing],
            drawings=(drawing_of(draw(), _heading(name), is_open=is_open) for name, draw in content.figures.items()),
            facts=content.facts,
            warnings=[],
            skipped=[],
            fprs=fprs_between(first.fpr_bounds),
            sort_name="Difference",
            categories=[category for category in content.results if category],
            defects=sorted({image.defect for image in images} - {""}),
            cards=_cards(shown, content, sources, max_characters),
            is_comparison=True,
        )
        write_page(path, page)


def _heading(name: str) -> str:
    """Heading of a picture, whose name is `confidence` or `CATEGORY/confidence`."""
    *category, kind = name.rsplit("/", 1)
    return ": ".join([kind[0].upper() + kind[1:], *category])


def _find_sources(content: PageContent) -> tuple[Sources, list[str]]:
    """Find images and maps of the models, and say of which there are none."""
    found: dict[Path, EvaluatedPairs] = {}
    sources, missing = Sources(), dict[str, None]()
    for category, by_model in content.results.items():
        for model in by_model:
            file = content.files[category].get(model)
            try:
                if file is None:
                    raise BadDataError("a model with seeds has several maps of an image")  # noqa: TRY301
                summary = _summary_of(file)
                if summary not in found:
                    found[summary] = find_evaluated_pairs(summary)
                sources[category, model] = found[summary]
            except (BadDataError, OSError) as error:
                missing[f"No pictures of {model}: {error}"] = None
    return sources, list(missing)


def _summary_of(file: Path) -> Path:
    """The `summary.json` of the evaluation that wrote a result file."""
    for folder in file.absolute().parents[1:3]:
        if (folder / SUMMARY_FILE).is_file():
            return folder / SUMMARY_FILE
    raise BadDataError(f"there is no {SUMMARY_FILE} of `aupimo evaluate --out` above {file}")


def _images_of(category: str, content: PageContent, sources: Sources) -> list[_Image]:
    """Anomalous images of a category, those on which the models differ most first."""
    results = content.results[category]
    (first_name, first), *_ = results.items()
    aligned = align_scores(results)
    orders = aligned.orders if aligned.matched_by == "path" else {}
    images = []
    for place in range(len(first.aupimos)):
        scores = {name: float(each[place]) for name, each in aligned.scores.items()}
        if any(map(math.isnan, scores.values())):
            continue
        indices = {name: order[place] for name, order in orders.items()}
        paths = {name: (results[name].paths or [])[index] for name, index in indices.items()}
        pairs = {
            name: sources[category, name].by_name[path]
            for name, path in paths.items()
            if (category, name) in sources and path in sources[category, name].by_name
        }
        images.append(_Image(category, paths.get(first_name, f"image {place}"), scores, indices, pairs))
    return sorted(images, key=lambda image: -image.difference)


def _cards(images: Iterable[_Image], content: PageContent, sources: Sources, max_characters: float) -> Iterator[Card]:
    """Read images one by one, and show what each model finds in them."""
    for category, group in groupby(images, key=lambda image: image.category):
        models, notes = dict[str, Model](), dict[str, str]()
        for name in content.order:
            if (category, name) in sources:
                try:
                    result = AUPIMOResult.load(content.files[category][name])
                except (ValueError, OSError) as error:
                    notes[name] = f"No picture: {error}"
                else:
                    models[name] = make_model(name, result, sources[category, name].reader)
        for image in group:
            views = [
                model_view(models[name], image.indices[name], image.pairs[name], max_characters)
                if name in models and name in image.pairs
                else ModelView(name, image.scores[name], [], None, notes.get(name, ""))
                for name in content.order
            ]
            facts = [f"difference {image.difference:.4f}", image.category, image.defect]
            yield Card(
                name=image.name,
                category=image.category,
                defect=image.defect,
                num_mask_pixels=_num_mask_pixels(image, models),
                sort_value=image.difference,
                facts=[fact for fact in facts if fact],
                views=views,
            )


def _num_mask_pixels(image: _Image, models: Mapping[str, Model]) -> int | None:
    """Mask pixels of an image, if a model knows them."""
    sizes = ((models[name].result.mask_sizes, image.indices[name]) for name in image.indices if name in models)
    return next((int(each[index]) for each, index in sizes if each is not None), None)


def _table(content: PageContent) -> Table:
    """Rows of the models in each category, without columns that are empty."""
    names = [name for name in content.rows[0] if any(_cell(row[name]).text for row in content.rows)]
    rows = [Row([_cell(row[name]) for name in names], row["category"] or None) for row in content.rows]
    head = [HEADINGS.get(name, name.replace("confidence_against_", "Confidence against ")) for name in names]
    return Table("A click on a heading sorts.", head, rows, [])


def _cell(value: str | float | None) -> Cell:
    """Cell of a text or number."""
    if value is None or isinstance(value, str):
        return Cell(value or "", None if isinstance(value, str) else math.nan)
    return Cell(str(value) if isinstance(value, int) else "" if math.isnan(value) else f"{value:.4f}", float(value))
