r"""Evaluate saved anomaly maps against a data set on disk by AUPIMO, and by other metrics of pixels and of images.

In the order of the work: `data` lists the images of a data set, in folders or in a table, and `maps` opens the maps;
`find` finds both, and `pairing` the map of each image. `reading` reads it with its mask, which `masks` understands, and
with its `regions`. `scoring` computes AUPIMO and `other_metrics` of each category, `image_warnings` says which files
look wrong, and `counting` counts what intervals are made of. `evaluation` holds the scores of the categories, as text
and for programs, with their `protocols`; `output` writes files and pictures, and `page` writes `report.html`, with the
thresholds of its `slider`. What cannot be evaluated is a bad file, see `bad_files`.

`choosing` chooses `thresholds` from maps of normal images, `apply` applies them to maps without masks, and
`at_threshold` counts what they do. `written` says where files of single images lie.

This package needs the extra `evaluate`. `aupimo evaluate` is `evaluate` and `Evaluation.save`: its options are their
parameters.

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
| `real_iad` | the test images of `realiad_jsons/CATEGORY.json`; without it all `.jpg`, with masks beside them |
| `bmad` | `CATEGORY/test/{good,Ungood}/img/000.png`, `CATEGORY/test/Ungood/label/000.png` |
| `images_and_masks` | `CATEGORY/test/{normal,anomalous}/images/000.png`, `CATEGORY/test/anomalous/masks/000.png` |
| `anomalib_folder` | `good/`, `DEFECT/`, `mask/DEFECT/` |
| `folder` | `images/...`, `masks/...` with equal names; the mask says the class |

Folders `good`, `ok`, `normal`, `none`, `no_defect` and `defect_free`, in any case, hold normal images;
`--normal-folder NAME` names others. Masks may have any suffix of images. Files and folders that begin with a dot are no
data. Links that lead out of the folder are refused unless `--follow-links` is given. Categories of which there is no
map are skipped, and named. All other data is a table; `--write-table` writes one of a data set, to start from.

## Masks

A mask is clear if, seen on black, it is black and one other colour, the same in all masks of a category; or one grey
alone: 0, 1 or the largest of its type. Anything else is a bad file, named with its values and their shares;
`--mask-threshold` says which values are a defect, `--ignore-index` which do not count.

| mask | what happens |
|---|---|
| 0 and one other value; black and one colour; one bit | the other one is a defect |
| 0 alone; 1 alone, or the largest value of the type alone | no defect; all defect |
| transparency; a palette | laid on black; counts by its colours |
| `.npy`, and images of more than 8 bits a pixel | count as stored |
| several classes where the layout says so (MVTec LOCO, VisA) | each value but 0 is a defect |
| several classes elsewhere, several colours and black | bad file; `--mask-threshold 0` takes each for a defect |
| noise of JPEG, soft edges of resizing, also in colours | bad file; `--mask-threshold 127` takes values above 127 |
| a label of pixels that do not count, as 255 beside 0 and 1 | bad file; `--ignore-index 255`: these do not count |
| 1 in some masks of a category, 255 in others | bad file; one of the two options says what they are |
| colours without black; black as a whole, though its pixels differ | bad file; save it as plain grey |
| TIFF whose 0 is white, but for fax; several frames; NaN; turned by EXIF | bad file; save it as plain grey |
| empty, though folder, label or defect of a row says defect; not empty, though it says normal | bad file |
| all cover more than half of their images | a warning |

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
| a file that holds no map, as the weights of a model | bad file; `--map-suffix .tiff` picks the maps |
| sides that fit the turned image, to a pixel of the map, and not the upright one | bad file |
| another size than the mask | resized bilinearly to it, as the official script does, unless `--no-resize` is given |
| infinite scores | kept, also when resized; NaN is a bad file |
| LZW and other compressed TIFF | read |

Bad files are listed by their paths, and nothing is written: first those that are seen from names, before any map is
read; then all others. `--skip-bad` goes on without them, if each category that loses images keeps normal and anomalous
ones. `aupimo --help` says what the exit codes mean.

## Thresholds

`aupimo threshold MAPS` chooses a threshold for each category from maps of normal images, which the detector was not
trained on: `--fpr F` by the share of the normal pixels that it calls anomalous, `--alarms SHARE` by the share of new
normal images that it stops. MAPS are of normal images alone, in one folder or in one folder for each category; or
`--data` and `--table` say which of them are. `--out` writes `thresholds.json`, `{"thresholds": {"bottle": 0.5}}`; one
that is written by hand will do.

`aupimo evaluate --threshold NUMBER|thresholds.json` counts what it does: over all pixels of a category `seg_f1`,
`precision`, `recall` and `fpr`, over its images `class_f1` and those of either class with an alarm. An image raises an
alarm if one of its pixels reaches the threshold. `--write-masks` writes binary masks, PNG of 0 and 255.

`aupimo threshold --threshold NUMBER|thresholds.json --apply MAPS` does the same to maps of images without masks:
`--write-masks` and `--write-maps` (TIFF of float16) write what a submission to MVTec AD 2 consists of.

Nothing is written into a folder that is read. `--split NAME` takes maps below folders of a name only, as `validation`.
Maps and thresholds are compared in float32. Maps alone are used in their own size, those of a data set in the size of
its masks: resizing changes an FPR a little.

## Numbers as papers report them

The same maps give other numbers in another protocol. Each metric has a line that says how it was computed, below the
table and in `summary.json`. Without options all is at the size of the masks, and an image is scored by its highest
pixel. `--size 256` resizes maps bilinearly and masks to the nearest pixel, `--image-score top_1%` takes the mean of the
highest share of the pixels, or `mean` of all: many papers use both. A mask of which no pixel is left is a bad file.
`--by defect` adds a row for each type of defect, with all normal images.

`--metrics au_spro` is AU-sPRO of MVTec LOCO, up to `--fpr-limit` (papers: 0.05): each value but 0 in a mask file is a
region, and the nearest `defects_config.json` above it says how much of the region has to be found.

## How sure the numbers are

`--intervals` gives each metric an interval (95 %): where it may lie on other images of the same kind. Normal and
anomalous images are drawn anew, each among themselves, 1,000 times, the same for all metrics, so that thresholds vary,
too. Several photographs of one part are no independent images: a column `group` of a table names the part, and parts
are drawn. From 20 images of each class on, such an interval held the value of very many images in 92 of 100 simulations
or more. Where few normal images carry the FPR, as a warning then says, AUPIMO tends to be too high, and no interval
helps. Types of defects have no intervals.

For comparisons by any metric, `aupimo/counts.safetensors` holds the counts of each image in 1,024 common bins, for
which maps are read a second time.

Files may come from anybody: no code in them is run, no path leads out of the given folders, names are shown as text,
and the size that a file declares is checked before its pixels are read. What is not promised: a file that is made to
harm may still cost time and memory, as much as the libraries take to unpack it.
"""

from aupimo_torchmetrics._errors import BadDataError as BadDataError
from aupimo_torchmetrics.evaluate.apply import apply_thresholds
from aupimo_torchmetrics.evaluate.bad_files import BadFile as BadFile
from aupimo_torchmetrics.evaluate.bad_files import BadFilesError as BadFilesError
from aupimo_torchmetrics.evaluate.choosing import choose_thresholds
from aupimo_torchmetrics.evaluate.data.layouts import LabelledImage as LabelledImage
from aupimo_torchmetrics.evaluate.data.layouts import find_test_images as find_test_images
from aupimo_torchmetrics.evaluate.evaluation import CategoryScores as CategoryScores
from aupimo_torchmetrics.evaluate.evaluation import Evaluation
from aupimo_torchmetrics.evaluate.maps.open import MapFiles as MapFiles
from aupimo_torchmetrics.evaluate.maps.open import open_maps as open_maps
from aupimo_torchmetrics.evaluate.masks import MaskRule as MaskRule
from aupimo_torchmetrics.evaluate.output import SavedFiles as SavedFiles
from aupimo_torchmetrics.evaluate.scoring import evaluate
from aupimo_torchmetrics.evaluate.thresholds import Thresholds

__all__ = ["Evaluation", "Thresholds", "apply_thresholds", "choose_thresholds", "evaluate"]
