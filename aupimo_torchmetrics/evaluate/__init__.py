"""Evaluate saved anomaly maps against a data set on disk by AUPIMO, AUROC, AUPR and AUPRO.

In the order of the work: `layouts` lists the images of a data set, by `data_folders` and `published_layouts`, and
`tables` those of a table; `map_files` opens maps, of which `map_sets` are many in one file; `pairing` finds the map of
each image; `mask_files`, `masks` and `reading` read it with its mask; `scoring` scores them category by category;
`skipping` decides whether they may be scored without bad files; `report` says what came out, and `output` writes files
and pictures. `bad_files` names what cannot be evaluated.

This package needs the extra `evaluate`.
"""

from aupimo_torchmetrics._files import BadDataError
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFilesError
from aupimo_torchmetrics.evaluate.layouts import LabelledImage, find_test_images
from aupimo_torchmetrics.evaluate.map_files import MapFiles, open_maps
from aupimo_torchmetrics.evaluate.masks import MaskRule
from aupimo_torchmetrics.evaluate.output import SavedFiles
from aupimo_torchmetrics.evaluate.report import CategoryScores, DefectScores, Evaluation, MapFacts
from aupimo_torchmetrics.evaluate.scoring import evaluate

__all__ = [
    "BadDataError",
    "BadFile",
    "BadFilesError",
    "CategoryScores",
    "DefectScores",
    "Evaluation",
    "LabelledImage",
    "MapFacts",
    "MapFiles",
    "MaskRule",
    "SavedFiles",
    "evaluate",
    "find_test_images",
    "open_maps",
]
