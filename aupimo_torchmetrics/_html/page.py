"""What a page holds, and how it is written: one file, image by image, so that memory stays flat.

Names of files come from data sets, and may hold anything. The template escapes every text, and the page forbids all
scripts but its own, and all requests.
"""

from __future__ import annotations

import io
import math
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aupimo_torchmetrics._files.writing import replacing
from aupimo_torchmetrics._html.pictures import View
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Card",
    "Cell",
    "Drawing",
    "ModelView",
    "Page",
    "Row",
    "Table",
    "characters_for_each",
    "drawing_of",
    "fprs_between",
    "thresholds_of",
    "write_page",
]

NUM_STEPS = 21
"""Positions of the slider between the FPR bounds."""
MAX_CHARACTERS = 14_000_000
"""Of the pictures of all images together, as far as `MIN_CHARACTERS` allows."""
MIN_CHARACTERS = 12_000
CHARACTERS_AT_MOST = 90_000
"""Of the pictures of one image."""


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    value: float | None = None
    """Number to sort by; None for a text."""


class Row(NamedTuple):
    """A row of a table."""

    cells: list[Cell]
    category: str | None = None
    """Category of the images that the row is of; None if there are no such images to show."""
    defect: str = ""
    """Type of the defects of these images; empty for all types."""


class Table(NamedTuple):
    """A table whose rows a reader can sort."""

    caption: str
    head: list[str]
    rows: list[Row]
    foot: list[list[str]]
    """Rows that stay at the end."""

    @property
    def has_images(self) -> bool:
        """Whether a row leads to images."""
        return any(row.category is not None for row in self.rows)


class Drawing(NamedTuple):
    """A picture that can be enlarged without loss."""

    title: str
    image: str
    """Address that holds an SVG file."""
    is_open: bool
    """Whether it is shown before the reader asks for it."""


class ModelView(NamedTuple):
    """What one model says of one image."""

    model: str
    """Name of the model; empty if there is only one."""
    score: float
    """AUPIMO; NaN for a normal image."""
    thresholds: list[float]
    """At the steps of the slider, ascending; empty if they are not known."""
    view: View | None
    """Pictures and counts; None if they cannot be made."""
    note: str = ""
    """Why there are no pictures, or not all."""

    def steps(self) -> dict[str, Any]:
        """Return what the slider needs, as JSON can hold it."""
        view = self.view
        if view is None:
            return {}
        return {
            "thresholds": [f"{value:.6g}" for value in self.thresholds],
            "tprs": [None if math.isnan(tpr) else tpr for tpr in view.tprs],
            "numFalsePositives": view.num_false_positives,
            "levels": view.picture.levels,
        }


class Card(NamedTuple):
    """An image on the page."""

    name: str
    category: str
    defect: str
    """Type of the defect; empty if it is not known."""
    num_mask_pixels: int | None
    """None if it is not known."""
    sort_value: float
    """What cards are sorted by: a score, or a difference of scores; NaN for a normal image."""
    facts: list[str]
    """Short texts below the name."""
    views: list[ModelView]


@dataclass
class Page:
    """All that a page shows.

    Attributes:
        title: Heading.
        quote: Line to quote beside a score; empty if there is none.
        tables: Tables of scores.
        notes: Lines below the tables.
        drawings: Pictures of distributions and curves.
        facts: Settings and versions by name.
        warnings: Warnings.
        skipped: Lines of files that were skipped.
        fprs: Shared FPR at each step of the slider.
        sort_name: What `Card.sort_value` is.
        categories: Categories of the anomalous images.
        defects: Types of their defects.
        cards: Anomalous images. They are made one by one while the page is written.
        normal_cards: Normal images with the most false positives, likewise.
        has_normal_cards: Whether there are any of these.
        is_comparison: Whether cards are of several models, the largest difference first.

    """

    title: str
    quote: str
    tables: list[Table]
    notes: list[str]
    drawings: Iterable[Drawing]
    facts: dict[str, str]
    warnings: list[str]
    skipped: list[str]
    fprs: list[float]
    sort_name: str
    categories: list[str]
    defects: list[str]
    cards: Iterable[Card]
    normal_cards: Iterable[Card] = ()
    has_normal_cards: bool = False
    is_comparison: bool = False


def fprs_between(bounds: tuple[float, float]) -> list[float]:
    """Return the shared FPRs of the slider, from the upper bound to the lower one, evenly spaced in log."""
    lower, upper = bounds
    inner = [upper * (lower / upper) ** (step / (NUM_STEPS - 1)) for step in range(1, NUM_STEPS - 1)]
    return [upper, *inner, lower]


def thresholds_of(result: AUPIMOResult) -> list[float]:
    """Return the thresholds at the steps of the slider, ascending; none if a result does not know them.

    Where there is no threshold, because too many normal scores are +inf, it is +inf.
    """
    try:
        values = [result.threshold_at(fpr) for fpr in fprs_between(result.fpr_bounds)]
    except ValueError:  # a file of the official package holds only scores
        return []
    if math.isnan(values[0]):
        return []
    return [math.inf if math.isnan(value) else value for value in values]


def characters_for_each(num_pictures: int) -> float:
    """Return how many characters the pictures of one image may take, of a number of images in all."""
    return min(max(MAX_CHARACTERS / max(num_pictures, 1), MIN_CHARACTERS), CHARACTERS_AT_MOST)


def drawing_of(figure: Figure, title: str, *, is_open: bool = False) -> Drawing:
    """Make a drawing of a figure."""
    from matplotlib import rc_context  # noqa: PLC0415

    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "aupimo"}):  # the same picture gives the same page
        figure.savefig(file, format="svg", metadata={"Date": None})
    return Drawing(title, f"data:image/svg+xml;base64,{b64encode(file.getvalue()).decode()}", is_open)


def write_page(path: Path, page: Page) -> None:
    """Write a page, card by card. An existing file is replaced only when the new one is complete."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    folder = files("aupimo_torchmetrics._html")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = Environment(
        loader=PackageLoader("aupimo_torchmetrics._html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    stream = environment.get_template("page.html").stream(
        page=page, style=style, script=script, style_hash=_hash(style), script_hash=_hash(script)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        # Names of files that are no valid text have characters that UTF-8 cannot write.
        stream.dump(file, encoding="utf-8", errors="backslashreplace")


def _hash(text: str) -> str:
    """What a page says of a script or style that it allows."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _number(value: float | None, digits: int = 4) -> str:
    """A number as text; empty if there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"
