"""A comparison as text, as rows of CSV, and as LaTeX that needs no packages."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aupimo_torchmetrics._tables import text_table

if TYPE_CHECKING:
    from aupimo_torchmetrics.compare.comparison import Comparison

__all__ = ["csv_rows", "latex_text", "summary_text", "title"]

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
    (result, *_) = next(iter(comparison.results.values())).values()
    lower, upper = result.fpr_bounds
    shared_by = " (maximum of per-image FPRs)" if result.shared_fpr == "max" else ""
    is_ranked = comparison.ranking is not None
    order = f"; ordered by average rank over {len(comparison.results)} categories" if is_ranked else ""
    return f"AUPIMO, shared FPR {lower:g} to {upper:g}{shared_by}{order}"


def summary_text(comparison: Comparison) -> str:
    """Return the tables of a comparison, and below them what there is to say of seeds, files and warnings."""
    ranking = comparison.ranking
    if ranking is None:
        parts = [f"{title(comparison)}\n{next(iter(comparison.comparisons.values()))}"]
    else:
        rows = [["mean score", *comparison.results]]
        rows += [[name, *(f"{of[name].mean:.3f}" for of in comparison.results.values())] for name in ranking.order]
        parts = [f"{title(comparison)}\n{text_table(rows, '<' + '>' * len(comparison.results))}", str(ranking)]
    return "\n\n".join(part for part in [*parts, _seeds_table(comparison), *comparison.notes()] if part)


def csv_rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Rows of a model in a category each, in which numbers have all their digits."""
    for category in comparison.to_dict()["categories"]:
        for each in category["models"]:
            against = {f"confidence_against_{other}": each["confidence"].get(other) for other in comparison.order}
            yield {
                "category": category["category"],
                "model": each["model"],
                "mean": each["mean"],
                "std": each["std"],
                "num_seeds": len(each["seeds"]) or None,
                "average_rank": each["average_rank"],
                "interval_lower": each["interval"][0],
                "interval_upper": each["interval"][1],
                "num_images": category["num_images"],
                **against,
            }


def latex_text(comparison: Comparison) -> str:
    """Return means in each category with their mean and the average rank, or for one category all that is printed."""
    ((category, only), *_), ranking = comparison.comparisons.items(), comparison.ranking
    comments = [title(comparison)]
    if ranking is None:
        comments.append(only.title)
        head, *printed = only.rows()
        rows = [[row[0], row[1], _mean_and_std(comparison, row[1], category), *row[3:]] for row in printed]
        alignment = "ll" + "r" * (len(head) - 3) + "l"
    else:
        head = ["model", *comparison.results, "mean", "average rank"]
        columns = [*comparison.results, None]
        means = {name: [_mean_and_std(comparison, name, column) for column in columns] for name in ranking.order}
        rows = [[name, *means[name], f"{ranking.average_ranks[name]:.2f}"] for name in ranking.order]
        alignment = "l" + "r" * (len(head) - 1)
    if _seeds(comparison):
        comments.append("In brackets: the standard deviation over seeds.")
    comments.append(r"With the package booktabs, \toprule, \midrule and \bottomrule may replace the lines.")
    first, *others = [" & ".join(map(_escaped, row)) + r" \\" for row in [head, *rows]]
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\hline", first, r"\hline", *others, r"\hline", r"\end{tabular}"]
    return "\n".join([*(f"% {comment}" for comment in comments), *lines, ""])


def _escaped(text: str) -> str:
    """Escape what LaTeX would not print as it is."""
    printable = (character if character.isprintable() else " " for character in unicodedata.normalize("NFC", text))
    return "".join(printable).translate(LATEX_CHARACTERS)


def _seeds(comparison: Comparison) -> dict[str, Sequence[str]]:
    """Names of the seeds of each model that has some, which are the same in all categories."""
    (by_model, *_) = comparison.seed_means.values()
    return {model: tuple(by_model[model]) for model in comparison.order if by_model.get(model)}


def _seeds_table(comparison: Comparison) -> str:
    """Means and standard deviations over seeds, with a row for each model that has some; empty if none has."""
    seeds = _seeds(comparison)
    if not seeds:
        return ""
    columns: dict[str, str | None] = {category or "score": category for category in comparison.results}
    if comparison.ranking is not None:
        columns["all categories"] = None
    rows = [["model", "seeds", *columns]]
    for model, names in seeds.items():
        cells = [_mean_and_std(comparison, model, category) for category in columns.values()]
        rows.append([model, f"{len(names)}: {', '.join(names)}", *cells])
    about = (
        "mean score (standard deviation over seeds); ranks, tests and intervals are of each image's mean over the seeds"
    )
    without = [model for model in comparison.order if model not in seeds]
    note = [f"without seeds: {', '.join(without)}"] if without else []
    return "\n".join([about, text_table(rows, "<<" + ">" * len(columns)), *note])


def _mean_and_std(comparison: Comparison, model: str, category: str | None) -> str:
    """Mean score in a category, or over all, and behind it the standard deviation if the model has seeds."""
    if category is None and comparison.ranking is not None:
        mean = comparison.ranking.means[model]
    else:
        mean = comparison.results[category or ""][model].mean
    if model not in _seeds(comparison):
        return f"{mean:.3f}"
    std = comparison.seed_std(model, category)
    return f"{mean:.3f} ({'-' if math.isnan(std) else f'{std:.3f}'})"
