"""Evaluate saved anomaly maps against a data set on disk."""

from aupimo_torchmetrics.evaluate.scoring import BadDataError, CategoryScores, Evaluation, Fault, evaluate

__all__ = ["BadDataError", "CategoryScores", "Evaluation", "Fault", "evaluate"]
