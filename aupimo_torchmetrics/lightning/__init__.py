"""A Lightning callback that shows where a logged AUPIMO comes from, in TensorBoard and other loggers.

The callback (`_callback`) listens to the metrics of a validation or test epoch, which tell it what they have scored
(`_epoch`). It looks up the photographs in the batch (`_images`) and keeps a few (`_gallery`), knows under which name
Lightning logs a metric and at which step (`_names`), draws figures (`_figures`), and gives them to loggers and files
(`_loggers`).

It works with both names of Lightning, `lightning` and `pytorch_lightning` (`_packages`). It needs the extras
`lightning` and `plot`.

## Questions that come up

- **What must the validation set hold?** Normal *and* anomalous images. False positives are counted on the normal ones:
  they need `1 / L` pixels in all (100,000 at the default bounds) for any threshold to reach the lower bound, and a few
  million for a fine answer. With less, the score is that of an interpolated curve, and a warning says so.
- **Which bounds for small images or few of them?** Ten normal pixels or more at the lower bound: `L >= 10 / P` for `P`
  normal pixels in all, rounded up to a power of ten, and `U = 10 * L`. 20 normal images of 64 x 64 have 81,920 pixels:
  `fpr_bounds=(1e-3, 1e-2)`. Say the bounds beside the score; scores of other bounds cannot be compared.
- **Must no normal image show more false positives?** The shared FPR is the mean over the normal images, so one of them
  may show many if the others show none. `AUPIMO(shared_fpr="max")` goes by the normal image with the most, which is
  stricter. Each normal image then needs `1 / L` pixels or more; more images do not help. Both metrics in one
  `MetricCollection` keep their scores once.
- **What happens in the sanity check?** Lightning looks at two batches before training, usually of one class only. The
  score is NaN there, with a warning, and nothing is logged. `num_sanity_val_steps=-1` checks with all of the data.
- **Why no sigmoid, clamping or normalisation of the maps?** Only the order of the scores counts. Whatever makes the
  highest scores equal (clamping to [0, 1], a sigmoid that saturates) hides which are higher. anomalib clamps at test
  time: `PostProcessor(enable_normalization=False)`.
- **Where do heat maps come from?** Maps, masks and ids are those that the metric was updated with, also where another
  callback has changed what the step returns. The photographs are looked up in the batch: a tensor under `image` or
  `images`, or the first one of a tuple. Elsewhere, `AUPIMOCallback(images="photo")` names them, and a function gives
  them: `AUPIMOCallback(images=lambda batch: batch["views"]["front"])`. Photographs that only the step returns are not
  found, nor those of an update outside of a batch.
- **A step that reorders its batch, or scores image by image?** Give ids to `update`, and photographs by id to the
  callback: `images=lambda batch: dict(zip(batch["path"], batch["image"]))`.
- **The training has an AUPIMO, too?** Give it a metric of its own, `self.train_aupimo`. Otherwise its images are in the
  metric when the validation starts; a warning says how many.
- **When can I call `result()`?** In your own hooks up to `on_validation_epoch_end`. Then Lightning resets the metric;
  `callback.results` keeps the result.
- **Images of several categories?** `PerCategory(vad_metrics(), categories)` keeps a metric for each category. Log the
  whole object, `self.log_dict(self.metrics)`; figures stand beside `bottle/AUPIMO`. For a few of many categories give
  the callback a name, `AUPIMOCallback("bottle/AUPIMO")`.
- **Two validation loaders?** Lightning gives the batches of both to one metric: each loader needs its own, see below.
- **Why is `self.log("val/aupimo", self.aupimo(maps, masks))` NaN?** That is the mean of the scores of single batches,
  and a batch without normal or without anomalous images has none. Call `update`, and log the metric itself.
- **`MetricTracker`** takes a NaN of the sanity check for the best value for ever. Set `num_sanity_val_steps=0`, or
  neither increment nor update the tracker while `self.trainer.sanity_checking`.
- **What of several processes?** Every rank gets the score of all data. A `DistributedSampler` repeats some images to
  fill up the ranks. Pass an id for each image, its index in the data set or its path, `self.aupimo.update(maps, masks,
  image_ids=paths)`: repeated images count once, and `result()` is in the order of the ids. Without ids they count
  twice, and the order is that of the ranks, then of the updates. Call `result()` on every rank.
- **What if a validation is broken off** (Ctrl-C in a notebook, an error)? The images seen so far stay in the metric,
  as with any metric of torchmetrics, and Lightning resets it at the end of an epoch or of a sanity check. Call
  `model.aupimo.reset()` before a further `Trainer.validate`, or `fit` without sanity check.
- **EarlyStopping stops on NaN.** A validation epoch without normal or without anomalous images has no score; the
  warning before says which is missing. `EarlyStopping(..., check_finite=False)` goes on.

## Two validation loaders

```python
import lightning
import torch
from aupimo_torchmetrics import AUPIMO
from torch.utils.data import DataLoader, TensorDataset

NAMES = ["day", "night"]


class Detector(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.aupimos = torch.nn.ModuleList(AUPIMO() for _ in NAMES)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        anomaly_maps, masks = batch  # in place of your detector
        aupimo = self.aupimos[dataloader_idx]
        aupimo.update(anomaly_maps, masks)
        self.log(f"val/aupimo_{NAMES[dataloader_idx]}", aupimo, add_dataloader_idx=False)


torch.manual_seed(0)
masks = torch.zeros(8, 256, 256, dtype=torch.bool)
masks[4:, 100:120, 100:120] = True
loaders = [DataLoader(TensorDataset(torch.randn(8, 256, 256) + gain * masks, masks), batch_size=4) for gain in (4, 3)]
trainer = lightning.Trainer(logger=False, enable_progress_bar=False, enable_checkpointing=False)
day, night = trainer.validate(Detector(), loaders, verbose=False)
print(round(day["val/aupimo_day"], 3), round(night["val/aupimo_night"], 3))  # 0.494 0.154
```

`PerCategory(AUPIMO(), NAMES)` also gives their mean: update it with `categories=NAMES[dataloader_idx]`, and log it
once, by `self.log_dict(self.aupimo)` in `on_validation_epoch_end`.
"""

from __future__ import annotations

from aupimo_torchmetrics.lightning._callback import AUPIMOCallback

__all__ = ["AUPIMOCallback"]
