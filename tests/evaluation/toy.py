"""A small stochastic model and a small source of clips, for the tests of evaluation."""

import dataclasses

import numpy as np
import tensorflow as tf

from tfvid.errors import UserError
from tfvid.hparams import HParams, hp
from tfvid.models.draws import StatelessDraws
from tfvid.models.video_model import VideoModel


@dataclasses.dataclass(frozen=True)
class ToyHParams(HParams):
    noise: float = hp(0.1, "deviation of the samples around the last frame; 0: deterministic", low=0)


class Toy(VideoModel):
    """Predicts the last given frame times `gain`, plus noise that grows with time."""

    HPARAMS = ToyHParams

    def __init__(self, hparams, spec, seed=0, name=None):
        super().__init__(hparams, spec, seed, name)
        self.gain = self.add_weight(name="gain", shape=(), initializer="ones")
        self.finish_build({})

    def generate(self, batch, seed, num_samples=1, horizon=None):
        context = self.hparams.context_frames
        images = self.images_to_float(batch["images"])
        last = images[:, context - 1 : context]  # [B, 1, H, W, C]
        shape = [num_samples, tf.shape(images)[0], horizon, *images.shape[2:]]
        noise = StatelessDraws(seed, stream="generate").normal("noise", shape)
        growth = tf.sqrt(tf.range(1.0, horizon + 1))[:, None, None, None]
        outputs = {"images": tf.clip_by_value(self.gain * last + self.hparams.noise * growth * noise, 0, 1)}
        if "boxes" in batch:
            last = batch["boxes"][None, :, context - 1 : context]
            outputs["boxes"] = tf.tile(last + 0.1, [num_samples, 1, horizon, 1, 1])
        return outputs


class ToySource:
    """Moving squares of random grey; `count` clips of `frames` frames."""

    name = "toy"
    fps = None

    def __init__(self, count=5, frames=8, size=16, channels=3, boxes=False):
        rng = np.random.default_rng(0)
        self._count, self._frames, self._boxes = count, frames, boxes
        self._size, self._channels, self._rng = size, channels, rng
        self._speed = rng.integers(1, 3, (count, 2))
        self._grey = rng.integers(80, 255, (count, channels))

    def defaults(self):
        return {"context_frames": 2, "sequence_length": 5, "long_sequence_length": self._frames, "frame_skip": 0}

    def spec(self, hparams, length=None):
        length = length or hparams.sequence_length
        if length > self._frames:
            raise UserError(f"expected clips of {length} frames, found {self._frames}")
        spec = {"images": tf.TensorSpec([length, self._size, self._size, self._channels], tf.uint8)}
        if self._boxes:
            spec["boxes"] = tf.TensorSpec([length, 1, 4], tf.float32)
        return spec

    def count(self, split, hparams=None, length=None):
        if length is not None:
            self.spec(hparams, length)
        return self._count

    def clip(self, i, length):
        size = self._size
        images = np.zeros((length, size, size, self._channels), np.uint8)
        boxes = np.zeros((length, 1, 4), np.float32)
        for t in range(length):
            y, x = (self._speed[i] * t) % (size - 4)
            images[t, y : y + 4, x : x + 4] = self._grey[i]
            boxes[t, 0] = np.array([x, y, x + 4, y + 4]) / size
        return {"images": images, "boxes": boxes} if self._boxes else {"images": images}

    def evaluation_batches(self, split, hparams, batch_size, length=None, limit=None, shard=(0, 1)):
        numbers = list(range(min(self._count, limit or self._count)))
        batches = [numbers[i : i + batch_size] for i in range(0, len(numbers), batch_size)][shard[0] :: shard[1]]
        length = length or hparams.sequence_length

        def generate():
            for batch in batches:
                padded = batch + [-1] * (batch_size - len(batch))
                clips = [self.clip(max(i, 0), length) for i in padded]
                joined = {k: np.stack([c[k] for c in clips]) for k in clips[0]}
                yield {**joined, "index": np.array(padded, np.int64), "valid": np.array(padded) >= 0}

        spec = {k: tf.TensorSpec([batch_size, *s.shape], s.dtype) for k, s in self.spec(hparams, length).items()}
        spec |= {"index": tf.TensorSpec([batch_size], tf.int64), "valid": tf.TensorSpec([batch_size], tf.bool)}
        return tf.data.Dataset.from_generator(generate, output_signature=spec)
