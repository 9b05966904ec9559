"""What the pictures share: sizes in inches, colours, markers, names and scores of images, and new figures."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files.writing import replacing
from aupimo_torchmetrics._tables import score_text
from aupimo_torchmetrics.results import AUPIMOResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_SIZE = (7.5, 5.5)
HEATMAP_SIZE = (4.5, 4.0)
DEMO_SIZE = (13.0, 5.2)
"""Curves beside three heat maps."""

PICTURE_DPI = 150
"""Dots an inch of pictures that commands write."""

SCORE_COLORS = "viridis"
"""Colour map of scores from 0 to 1."""

BRIGHTEST = 0.9
"""Point of the colour map for a score of 1. The palest yellow beyond it can hardly be seen on white."""

MASK_COLOR = "deeppink"
"""Outline of a mask: neither in the colour map nor in a grey photograph."""

MARKERS = "os^Dv*Pp"
"""Shapes on curves, which tell curves apart that have nearly the same colour."""

WEAK_MEAN = 0.01
"""Below this mean score pictures say that of chance."""

TITLE_SIZES = ("medium", "small", "x-small", "xx-small")
"""Sizes of the titles of heat maps. The first is taken with which none has more lines than it may; with the last,
titles are cut."""
FEW_TITLE_LINES, MAX_TITLE_LINES = 2, 4
"""Lines of a title: of a name and a score, if all but the smallest sizes allow that, and at most."""
LINE_ENDS = re.compile(r"[ /_-]|\\(?!\$)")
"""Where a line of a title may end."""


def distribution_size(num_models: int = 1) -> tuple[float, float]:
    """Size of a picture of the distributions of models."""
    return 7.5, 1.8 + 0.6 * num_models


def heatmaps_size(num_images: int) -> tuple[float, float]:
    """Size of a picture of images and their heat maps."""
    return 2.2 * num_images + 1, 4.6


def ranks_size(num_models: int) -> tuple[float, float]:
    """Size of a picture of ranks."""
    return 7.5, 2.2 + 0.3 * num_models


def confidence_size(num_models: int) -> tuple[float, float]:
    """Size of a picture of the confidences of each model against each."""
    return 4.8 + 0.44 * num_models, 2.4 + 0.36 * num_models


def score_color(score: float) -> tuple[float, float, float, float]:
    """Colour of a score as red, green, blue and opacity."""
    from matplotlib import colormaps  # noqa: PLC0415

    return colormaps[SCORE_COLORS](BRIGHTEST * score)


def drawable(name: str) -> str:
    """A name that matplotlib can draw: no formula between dollars, and numbers for what is no text or has no glyph."""
    return with_glyphs(name.encode("utf-8", "backslashreplace").decode("utf-8").replace("$", r"\$"))


def with_glyphs(text: str) -> str:
    r"""A text with numbers, such as `\u6f22`, for the characters that the fonts in use lack."""
    from matplotlib import font_manager, rcParams  # noqa: PLC0415

    properties = [font_manager.FontProperties(family=[family]) for family in rcParams["font.family"]]
    fonts = [font_manager.get_font(font_manager.findfont(each)) for each in properties]
    has_glyph = {character: any(font.get_char_index(ord(character)) for font in fonts) for character in text}
    return "".join(each if has_glyph[each] else each.encode("unicode_escape").decode() for each in text)


def fit_titles(axes: Iterable[Axes]) -> None:
    """Break the titles of axes, and make them smaller, until each is as narrow as the place of its axis."""
    axes = list(axes)
    figure = cast("Figure", axes[0].get_figure(root=True))
    engine = figure.get_layout_engine()
    if engine is not None:
        with without_warnings():
            engine.execute(figure)  # only then each axis is in its place
    texts = [ax.get_title() for ax in axes]
    for num_lines, size in (*product([FEW_TITLE_LINES], TITLE_SIZES[:3]), *product([MAX_TITLE_LINES], TITLE_SIZES)):
        for ax, text in zip(axes, texts, strict=True):
            ax.title.set_fontsize(size)
            _fit_title(ax, text)
        if all(ax.get_title().count("\n") < num_lines for ax in axes):
            return
    for ax in axes:
        lines = ax.get_title().split("\n")
        if len(lines) > MAX_TITLE_LINES:  # the last one holds the score
            ax.title.set_text("\n".join([*lines[: MAX_TITLE_LINES - 1], f"...{lines[-1]}"]))


def _fit_title(ax: Axes, text: str) -> None:
    """Break the lines of a title, in the size that it has, until it is as narrow as the place of its axis."""
    figure = cast("Figure", ax.get_figure())
    width = ax.get_position(original=True).width * figure.bbox.width
    length = max(map(len, text.split("\n")))
    ax.title.set_text(text)  # `set_title` would reset the size
    while length > 1 and (drawn := ax.title.get_window_extent().width) > width:
        length = max(1, min(length - 1, int(length * width / drawn)))
        ax.title.set_text(in_lines(text, length))


def in_lines(text: str, length: int) -> str:
    """Break lines that are longer than `length`, where a word or a part of a path ends if possible."""
    lines: list[str] = []
    for line in text.split("\n"):
        rest = line
        while len(rest) > length:
            # Not within an escaped dollar: the rest would be a formula.
            ends = [match.end() for match in LINE_ENDS.finditer(rest) if 1 < match.end() <= length]
            end = ends[-1] if ends else length + (rest[length - 1 : length + 1] == r"\$")
            lines.append(rest[:end].rstrip(" ·"))
            rest = rest[end:].removeprefix("· ")
        lines.append(rest)
    return "\n".join(lines)


def image_name(result: AUPIMOResult | None, index: int) -> str:
    """Name of an image in a picture: the short end of its path that no other image has, or without paths its index.

    `bottle/test/scratch/005.png` is `scratch/005`. The suffix stays where two images differ in nothing else.
    """
    if result is None or not (result.paths and result.paths[index]):
        return f"image {index}"
    path = _with_slashes(result.paths[index])
    others = {_with_slashes(other) for other in result.paths} - {path}
    stems = {_without_suffix(other) for other in others}
    if _without_suffix(path) not in stems:
        path, others = _without_suffix(path), stems
    parts = path.split("/")
    ends = ["/".join(parts[-num_parts:]) for num_parts in range(2, len(parts))]
    return next((end for end in ends if not any(other.endswith(f"/{end}") for other in others)), path[1:])


def titled(result: AUPIMOResult | None, index: int, *texts: str) -> str:
    """Name of an image and what there is to say of it, as `scratch/005 · 0.73`."""
    return " · ".join([drawable(image_name(result, index)), *texts])


def _with_slashes(path: str) -> str:
    """A path of any system, with one slash before each part."""
    return "/" + re.sub(r"[\\/]+", "/", path).strip("/")


def _without_suffix(path: str) -> str:
    """A path without its suffix, if that is one of letters."""
    return re.sub(r"(?<=[^/])\.[A-Za-z]+$", "", path)


def known_scores(result: AUPIMOResult) -> NDArray[np.float64]:
    """Scores (n,) of the anomalous images."""
    scores = result.aupimos.double().cpu().numpy()
    return np.asarray(scores[~np.isnan(scores)])


def mean_text(result: AUPIMOResult) -> str:
    """Mean score of a result, beside that of chance if it is small."""
    chance = f" (chance {result.chance:.1e})" if result.mean < WEAK_MEAN else ""
    return score_text(result.mean) + chance


def figure_and_axis(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """The figure that holds an axis and the axis, or new ones of a size."""
    if ax is None:
        fig = new_figure(size)
        return fig, fig.subplots()
    return cast("Figure", ax.get_figure(root=True)), ax


def new_figure(size: tuple[float, float]) -> Figure:
    """A new figure of a size, which pyplot shows and closes."""
    require("matplotlib", extra="plot", needed_by="Plot function")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt.figure(figsize=size, layout="constrained")


def figure_without_pyplot(size: tuple[float, float]) -> Figure:
    """A new figure of a size to write to a file: it needs no display, and nobody has to close it."""
    require("matplotlib", extra="plot", needed_by="Plot function")
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=size, layout="constrained")


def drawn_off_screen(size: tuple[float, float], plot: Callable[..., object], *contents: object) -> Figure:
    """What a plot function draws of its contents, on an axis of its own in a `figure_without_pyplot`."""
    figure = figure_without_pyplot(size)
    plot(*contents, ax=figure.subplots())
    return figure


def save_figure(draw: Callable[[], Figure], path: Path) -> None:
    """Draw a figure, and write it in the format that the suffix says, complete or not at all, and without warnings."""
    with replacing(path) as unfinished, without_warnings():
        draw().savefig(unfinished, dpi=PICTURE_DPI, format=path.suffix[1:])


@contextmanager
def without_warnings() -> Iterator[None]:
    """Let matplotlib draw letters that no font has as boxes, and names too long for a layout without one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing|constrained_layout not applied")
        yield
