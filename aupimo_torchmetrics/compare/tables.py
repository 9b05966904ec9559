"""A comparison as one table, which is printed as text and as LaTeX that needs no packages."""

from __future__ import annotations

import math
import statistics
import unicodedata
from typing import TYPE_CHECKING

from aupimo_torchmetrics._tables import text_table

if TYPE_CHECKING:
    from aupimo_torchmetrics.compare.comparison import Comparison

__all__ = ["latex_text", "summary_text", "title"]

LATEX_NAMES = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"}
LATEX_CHARACTERS = str.maketrans(
    {
        **{character: rf"\text{name}{{}}" for character, name in LATEX_NAMES.items()},
        **{character: f"\\{character}" for character in "_%&#${}"},
        # After the end of a row, LaTeX takes these for an option of the line break.
        **{character: f"{{{character}}}" for character in "[]*"},
    }
)
"""Characters that LaTeX does not print as they are, and what prints them."""


def title(comparison: Comparison) -> str:
    """Say what the scores are, and for several categories how the models are ordered."""
    order = f"; ordered by average rank over {len(comparison.comparisons)} categories" if comparison.ranking else ""
    if comparison.protocol:
        return f"{comparison.protocol}{order}"
    (result, *_) = next(iter(comparison.results.values())).values()
    lower, upper = result.fpr_bounds
    shared_by = " (maximum of per-image FPRs)" if result.shared_fpr == "max" else ""
    return f"AUPIMO, shared FPR {lower:g} to {upper:g}{shared_by}{order}"


def summary_text(comparison: Comparison) -> str:
    """Return the table of a comparison, for several categories the ranking, and what there is to note."""
    lines, rows, alignment = _table(comparison)
    more = list(map(str, comparison.for_these_thresholds.values()))
    if comparison.ranking is not None:
        more = [*map(str, filter(None, [comparison.of_means])), str(comparison.ranking)]
    return "\n\n".join(["\n".join([*lines, text_table(rows, alignment)]), *more, *comparison.notes()])


def latex_text(comparison: Comparison) -> str:
    """Return the table of a comparison in LaTeX that needs no packages."""
    lines, rows, alignment = _table(comparison)
    head, *others = [" & ".join(map(_escaped, row)) + r" \\" for row in rows]
    columns = alignment.replace("<", "l").replace(">", "r")
    table = [rf"\begin{{tabular}}{{{columns}}}", r"\hline", head, r"\hline", *others, r"\hline", r"\end{tabular}", ""]
    return "\n".join([*(f"% {' '.join(line.split())}" for line in lines), *table])


def _table(comparison: Comparison) -> tuple[list[str], list[list[str]], str]:
    """What a table shows, its head and its rows, and the alignment of its columns.

    For one category it is that of the models with all confidences. For several it has the mean score in each category,
    the mean of these, and the average rank.
    """
    lines, ranking = [title(comparison)], comparison.ranking
    if ranking is None:
        ((category, only),) = comparison.comparisons.items()
        lines.append(only.title)
        head, *rows = only.rows()
        rows = [[*row[:2], _mean(comparison, row[1], category), *row[3:]] for row in rows]
        alignment = only.alignment
    else:
        categories = list(comparison.comparisons)
        head = ["model", *categories, "mean", "average rank"]
        columns = [*([category] for category in categories), categories]
        means = {name: [_mean(comparison, name, *column) for column in columns] for name in ranking.order}
        rows = [[name, *means[name], f"{ranking.average_ranks[name]:.2f}"] for name in ranking.order]
        alignment = "<" + ">" * (len(head) - 1)
    seeds = [
        f"{model}: {', '.join(comparison.seeds_of(model))}" for model in comparison.order if comparison.seeds_of(model)
    ]
    if seeds:
        lines.append(f"in brackets: standard deviation over seeds ({'; '.join(seeds)}); all else is of their means")
    return lines, [head, *rows], alignment


def _mean(comparison: Comparison, model: str, *categories: str) -> str:
    """Mean score in a category, or over several, and behind it the standard deviation if the model has seeds."""
    mean = statistics.fmean(comparison.comparisons[category].means[model] for category in categories)
    std = comparison.seed_std(model, *categories)
    return f"{mean:.3f} ({'-' if math.isnan(std) else f'{std:.3f}'})" if comparison.seeds_of(model) else f"{mean:.3f}"


def _escaped(text: str) -> str:
    """Escape what LaTeX would not print as it is."""
    printable = (character if character.isprintable() else " " for character in unicodedata.normalize("NFC", text))
    return "".join(printable).translate(LATEX_CHARACTERS)
