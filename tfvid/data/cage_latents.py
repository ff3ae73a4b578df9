"""Records with the outputs of CAGE's frozen networks beside the frames, computed once.

    python scripts/prepare_data.py --dataset=cage_latents --source_dir=data/clevrer --run=RUN \\
        --output_dir=data/clevrer_latents --processes=0
    python scripts/train.py --model=cage --hparams=hparams/clevrer/cage.json --input_dir=data/clevrer_latents ...

RUN is a run of cage_autoencoder (latents), or of cage (latents, and features with
--features=true). Training uses what it can (`Cage.cached`): latents unless frames are
augmented, features of whole frames with the hyper-parameter no_scale_inv.
"""

import functools
import os

import numpy as np
import tensorflow as tf

from tfvid.data.formats import ReadOptions, cut_clip
from tfvid.data.index import build_index
from tfvid.data.preparation import Item, Option, Preparation
from tfvid.data.records import SPLITS, DatasetInfo
from tfvid.errors import UserError

FRAMES_AT_ONCE = 16


class CageLatents(Preparation):
    """One item a record of a data set that `prepare_data` wrote; every key of it travels along."""

    ENCODING = "lossless"
    ITEMS_PER_FILE = 32
    OPTIONS = {
        "run": Option("", "run folder of cage_autoencoder or cage"),
        "features": Option(False, "the vision transformer's features, too; the run must be one of cage"),
    }

    def validate(self):
        from tfvid.training.run_folder import RunFolder

        if not self.options["run"]:
            raise UserError("--run: expected the run folder of a cage_autoencoder or cage. Received: none")
        self._run = RunFolder.open(self.options["run"])
        if self._run.model_name not in ("cage_autoencoder", "cage"):
            raise UserError(
                f"--run: expected a run of cage_autoencoder or cage. Received: one of {self._run.model_name}"
            )
        if self.options["features"] and self._run.model_name != "cage":
            raise UserError("--features: expected --run to be a run of cage. Received: one of cage_autoencoder")
        self._info = DatasetInfo.load(self.source_dir)
        size, trained = self._info.fields["images"].shape, tuple(self._run.spec["images"].shape[1:])
        if size != trained:
            raise UserError(f"--source_dir: expected frames {list(trained)} as the run's. Received: {list(size)}")

    def items(self):
        items = []
        for split in SPLITS:
            for number in range(self._info.splits.get(split, {}).get("clips", 0)):
                items.append(Item(f"{split}/{number}", split, {"record": number}))
        return items

    def clips(self, item):
        clip = self._read(item.split, item.payload["record"])
        model = self._model
        parts = []
        for start in range(0, len(clip["images"]), FRAMES_AT_ONCE):
            parts.append(self._encoded(model, clip["images"][start : start + FRAMES_AT_ONCE]))
        clip |= {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        yield clip

    def _encoded(self, model, images):
        """{"latents" [T, h, w, c][, "features"]} of uint8 [T, H, W, 3]."""
        frames = tf.constant(images)[None]
        if self._run.model_name == "cage_autoencoder":
            return {"latents": model.encode(model.images_to_float(frames))[0].numpy()}
        frames = model.signed(frames)
        result = {"latents": model.unscaled_latents(frames)[0].numpy()}
        if self.options["features"]:
            result["features"] = model.features(frames)[0].numpy()
        return result

    def _read(self, split, number):
        """{key: array} of one whole record."""
        index, fmt = build_index(self._source.files(split)), self._source.format
        record, name = index.read(number), index.name(number)
        length = int(fmt.count_frames(tf.constant(record), tf.constant(name)))
        options = ReadOptions(length, 0, 0, False, True, 0, 0, 0)
        layout = fmt.layout(record, name)
        zero = tf.zeros([2], tf.int64)
        clip = cut_clip(fmt, layout, options, tf.constant(record), tf.constant(name), tf.zeros_like, zero)
        return {k: v.numpy() for k, v in clip.items()}

    @functools.cached_property
    def _model(self):
        return self._run.load_model(training_networks=False)

    @functools.cached_property
    def _source(self):
        from tfvid.data.source import open_source

        return open_source(self._info.name, self.source_dir)

    def defaults(self):
        return dict(self._info.defaults)

    def description(self):
        name = os.path.basename(os.path.normpath(self.options["run"]))
        return {
            "source": f"{self._info.source}; latents of the run {name}", "fps": self._info.fps,
            "labels": self._info.labels,
        }  # fmt: skip
