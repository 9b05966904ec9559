"""Whether the results of several models were scored alike, as far as they say it."""

from __future__ import annotations

from collections.abc import Mapping

from aupimo_torchmetrics.results import AUPIMOResult

__all__ = ["scoring_differences"]


def scoring_differences(results: Mapping[str, Mapping[str, AUPIMOResult]]) -> tuple[str, ...]:
    """Say what else than the models makes scores differ, in a line for each cause.

    Args:
        results: What is compared, `results[category][model]`.

    """
    return tuple(filter(None, [_by_thresholds(results), _by_masks(results)]))


def _by_thresholds(results: Mapping[str, Mapping[str, AUPIMOResult]]) -> str:
    """Say that some scores are exact and others not."""
    every = [(model, each.num_points is None) for by_model in results.values() for model, each in by_model.items()]
    exact, sampled = (sorted({model for model, is_exact in every if is_exact == wanted}) for wanted in (True, False))
    if not exact or not sampled:
        return ""
    return (
        f"not scored alike: {', '.join(sampled)} by sampled thresholds, {', '.join(exact)} exactly. Even "
        "equal maps then have slightly different scores, which a test may find. Score all models in one way."
    )


def _by_masks(results: Mapping[str, Mapping[str, AUPIMOResult]]) -> str:
    """Say that models were scored by other masks, or in another size."""
    for category, by_model in results.items():
        numbers = {name: int(each.mask_sizes.sum()) for name, each in by_model.items() if each.mask_sizes is not None}
        if len(set(numbers.values())) > 1:
            least, most = min(numbers, key=lambda name: numbers[name]), max(numbers, key=lambda name: numbers[name])
            return (
                f"not the same masks: {f'in {category} ' if category else ''}{numbers[least]:,} pixels are a "
                f"defect for {least}, {numbers[most]:,} for {most}. Such scores cannot be compared. Score all models "
                "with the same masks, in one size."
            )
    return ""
