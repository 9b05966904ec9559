"""What a page holds, and how it is written: one file, image by image, so that memory stays flat.

Names of files come from data sets, and may hold anything. The template escapes every text, and the page forbids all
scripts but its own, and all requests.
"""

from __future__ import annotations

import io
import math
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aupimo_torchmetrics._files.writing import replacing
from aupimo_torchmetrics._html.views import View
from aupimo_torchmetrics.plotting._figures import without_warnings

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

__all__ = ["Card", "Page", "Row", "Table", "Value", "write_page"]

Value = str | int | float | None
"""What a cell of a table holds: a text, or a number to sort by. None and NaN are numbers that are not known."""


class Row(NamedTuple):
    """A row of a table."""

    values: list[Value]
    category: str = ""
    """Category of the images that the row is of; empty if there are no such images to show."""
    defect: str = ""
    """Type of the defects of these images; empty for all types."""


class Table(NamedTuple):
    """A table whose rows a reader can sort."""

    caption: str
    head: list[str]
    rows: list[Row]
    foot: list[str]
    """A row that stays at the end; empty for none."""
    digits: int
    """Digits of numbers that are no integers, behind the point."""


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
    peak: float
    """What cards of equal values are sorted by: the highest score in the mask; NaN if it is not known."""
    facts: list[str]
    """Short texts below the name."""
    views: list[View]


@dataclass
class Page:
    """All that a page shows.

    Attributes:
        title: Heading.
        quote: Line to quote beside a score; empty if there is none.
        tables: Table of scores, and others.
        notes: Lines below the table.
        drawings: What draws pictures of distributions and curves, by their headings.
        facts: Settings and versions by name.
        warnings: Warnings.
        skipped: Lines of what was skipped.
        fprs: Shared FPRs of the slider, from the highest on.
        start: Index of the one that it begins with.
        categories: Categories of the anomalous images.
        defects: Types of their defects.
        cards: Anomalous images. They are made one by one while the page is written.
        normal_cards: Normal images with the most false positives, likewise. None if there are none.
        has_chosen: Whether a threshold was chosen, which the slider can show.
        is_comparison: Whether cards are of several models, the largest difference first.

    """

    title: str
    quote: str
    tables: list[Table]
    notes: list[str]
    drawings: Mapping[str, Callable[[], Figure]]
    facts: dict[str, str]
    warnings: list[str]
    skipped: list[str]
    fprs: list[float]
    start: int
    categories: list[str]
    defects: list[str]
    cards: Iterable[Card]
    normal_cards: Iterable[Card] | None = None
    has_chosen: bool = False
    is_comparison: bool = False


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
    environment.filters.update(number=_number, hash=_hash, svg=_svg, breakable=_breakable)
    stream = environment.get_template("page.html").stream(page=page, style=style, script=script)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        # Names of files that are no valid text have characters that UTF-8 cannot write.
        stream.dump(file, encoding="utf-8", errors="backslashreplace")


def _hash(text: str) -> str:
    """What a page says of a script or style that it allows."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _number(value: Value, digits: int = 4) -> str:
    """A number as text, a small one with two digits; empty if it is not known."""
    if not isinstance(value, float):
        return "" if value is None else str(value)
    is_small = 0 < abs(value) < 10.0 ** (1 - digits)
    return "" if math.isnan(value) else f"{value:.1e}" if is_small else f"{value:.{digits}f}"


def _breakable(text: str) -> Markup:
    """A text as HTML that may break after a separator of names."""
    from markupsafe import Markup, escape  # noqa: PLC0415

    return Markup(re.sub(r"(?<=\w)([/_])(?=\w)", r"\1<wbr>", str(escape(text))))  # noqa: S704  it is escaped


def _svg(figure: Figure) -> str:
    """Address that holds a picture which can be enlarged without loss."""
    from matplotlib import rc_context  # noqa: PLC0415

    file = io.BytesIO()
    with without_warnings(), rc_context({"svg.hashsalt": "aupimo"}):  # the same picture gives the same page
        figure.savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{b64encode(file.getvalue()).decode()}"
