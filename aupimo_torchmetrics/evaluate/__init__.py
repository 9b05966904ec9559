r"""Evaluate saved anomaly maps against a data set on disk by AUPIMO, and by other metrics of pixels and of images.

In the order of the work: `layouts` lists the images of a data set, by `data_folders` and `published_layouts`, and
`tables` those of a table; `map_files` opens maps, of which `map_sets` are many in one file; `pairing` finds the map of
each image by its path; `mask_files`, `masks` and `reading` read it with its mask; `scoring`
scores them category by category, with `other_metrics` beside AUPIMO and with `image_warnings`; `skipping` decides
whether they may be scored without bad files; `category` and `report` say what came out; `output` writes files and
pictures, and `page` the page `report.html`. `bad_files` names what cannot be evaluated, and `find` finds what is
evaluated.

This package needs the extra `evaluate`.

## Data sets in folders

`--data ROOT` takes a collection or one category. `--layout` names the layout; without it, it is found out.

| `--layout` | images and masks |
|---|---|
| `mvtec` | `CATEGORY/test/DEFECT/000.png`, `CATEGORY/ground_truth/DEFECT/000_mask.png` or `000.png` |
| `mvtec_ad_2` | `CATEGORY/test_public/DEFECT/000.png`, `CATEGORY/test_public/ground_truth/DEFECT/000_mask.png` |
| `mvtec_3d` | `CATEGORY/test/DEFECT/rgb/000.png`, `CATEGORY/test/DEFECT/gt/000.png` |
| `loco` | as `mvtec`, with masks in `CATEGORY/ground_truth/DEFECT/000/*.png` |
| `visa` | `CATEGORY/Data/...` with `split_csv/1cls.csv`, or the form that its authors prepare |
| `btad` | as `mvtec`, with folders `ok` and `ko` |
| `ksdd2` | `test/20000.png`, `test/20000_GT.png`; the mask says the class |
| `real_iad` | the test images of `realiad_jsons/CATEGORY.json`; without it all images, with masks beside them |
| `anomalib_folder` | `good/`, `DEFECT/`, `mask/DEFECT/` |
| `folder` | `images/...`, `masks/...` with equal names |

Folders `good`, `ok`, `normal` and `defect_free`, in any case, hold normal images; `--normal-folder NAME` names others.
Masks may have any suffix of images. Files and folders that begin with a dot are no data. Links that lead out of the
folder are refused unless `--follow-links` is given. Categories of which there is no map are skipped, and named.

## Masks

A mask is taken as it is only if it says clearly what is a defect. Anything else is a bad file, named with its values
and the option that settles it:

| values of the file | what happens |
|---|---|
| 0 and one other value; black and one colour; a palette whose index 0 is black | the other one is a defect |
| only 0; only 1, or only the largest value of the type | no defect; all defect |
| several classes where the layout says so (MVTec LOCO, VisA) | each value but 0 is a defect |
| several classes elsewhere, several colours and black | bad file; `--mask-threshold 0` takes each for a defect |
| noise of JPEG, soft edges of resizing, also in colours | bad file; `--mask-threshold 127` takes values above 127 |
| a label of pixels that do not count, as 255 beside 0 and 1 | bad file; `--ignore-index 255`: these do not count |
| 1 in some masks of a category, 255 in others | bad file; `--mask-threshold 0`, or `--ignore-index 255` |
| two values without 0 | bad file; `--mask-threshold` with the lower one |
| transparency, a palette in disorder, several frames, NaN, turned by EXIF | bad file; save it as plain grey |
| empty, though the folder says defect; not empty, though it says normal; turned against its image | bad file |

## Maps

Maps are the official `asmaps.pt` (`{"asmaps": (N, h, w), "paths": [...]}`), or a folder of `.tiff`, `.npy`, `.npz`,
`.pt` or `.png` files, also sets (N, h, w) with the paths of their images, in any dtype. They are read a few at a time.
The output says by an example which map was taken for which image, unless their paths are equal, and warns if the
folders of maps name another category.

| maps | what happens |
|---|---|
| paths with more or fewer folders in front, with `\` | matched by the common end, if it fits one image |
| `000.png.npy`, `000_map.tiff`, all in one way | understood |
| `bottle_test_crack_000.tiff` or `crack_000.tiff` for `bottle/test/crack/000.png`, all in one way | understood |
| another category or folder; `map_000.tiff` | bad file; give the folder below which the paths agree, or a table |
| two maps of an image: seeds, pictures beside maps | bad file; give the folder of one, or `--map-suffix .tiff` |
| a map that fits two images, or no image; an image without a map | bad file |
| a set without paths | refused: the order of a set says nothing for sure |
| another size than the mask | resized bilinearly to it, as the official script does, unless `--no-resize` is given |
| infinite scores | kept, also when resized; NaN is a bad file |
| LZW and other compressed TIFF | read |

Bad files are all listed by their paths, and nothing is written; `--skip-bad` goes on without them, but never without
all normal or all anomalous images of a category.

Exit codes of all commands: 0, done and a score came out; 1, data that cannot be used, or no score came out; 2, the
command itself is wrong. `aupimo --help` says more.

Files may come from anybody: no pickled code is run, nothing is unpacked to more than its size, and no path leads out
of the given folders.
"""

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics.evaluate.bad_files import BadFile, BadFilesError
from aupimo_torchmetrics.evaluate.category import CategoryScores, DefectScores, MapFacts
from aupimo_torchmetrics.evaluate.data.layouts import LabelledImage, find_test_images
from aupimo_torchmetrics.evaluate.evaluation import Evaluation
from aupimo_torchmetrics.evaluate.maps.open import MapFiles, open_maps
from aupimo_torchmetrics.evaluate.masks import MaskRule
from aupimo_torchmetrics.evaluate.output import SavedFiles
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
