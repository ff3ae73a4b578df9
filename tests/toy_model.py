"""The smallest VideoModel with all that the training must handle, and data for it.

Two optimisers, noise, a batch-wise normaliser-free network: a step takes milliseconds, and
its weights tell whether an interrupted or distributed run went the same way as another.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfvid.data.records import DatasetInfo, encode_clip
from tfvid.hparams import HParams, hp
from tfvid.models.draws import StatelessDraws
from tfvid.models.optimizers import Adam
from tfvid.models.video_model import VideoModel

FRAMES, CONTEXT, SIZE = 4, 2, 8


@dataclasses.dataclass(frozen=True)
class ToyHParams(HParams):
    """Of `Toy`."""

    lr: float = hp(0.01, "learning rate", low=0)
    noise: float = hp(0.1, "standard deviation of the noise added to the first frame", low=0)
    nan_from: int = hp(-1, "steps from this one on have a loss that is not finite; -1: none", low=-1)
    nan_until: int = hp(1000000, "and those from this one on are finite again", low=0)
    spread: float = hp(0.0, "weights of the generator start this far from their usual values")


class Toy(VideoModel):
    """Predicts every frame from the first one by a convolution; a critic regresses the noise."""

    HPARAMS = ToyHParams

    def __init__(self, hparams, spec, seed=0, name=None):
        super().__init__(hparams, spec, seed, name)
        channels = spec["images"].shape[-1]
        self.generator = keras.Sequential(
            [
                keras.layers.Conv2D(4, 3, padding="same", activation="tanh"),
                keras.layers.Conv2D(channels, 3, padding="same"),
            ]
        )
        self.critic = keras.layers.Dense(1)
        self.generator.build((None, *spec["images"].shape[1:]))
        self.critic.build((None, channels))
        self.finish_build(
            {
                "generator": Adam([v for v in self.generator.trainable_weights], name="generator"),
                "critic": Adam([v for v in self.critic.trainable_weights], name="critic", form="torch"),
            }
        )

    def see_training_clips(self, clips):
        self.seen = [batch["images"][batch["valid"]].numpy() for batch in clips(5)]

    def predict_next(self, first, noise):
        """[B, H, W, C] in [0, 1] -> [B, H, W, C] in [0, 1]."""
        return ops.sigmoid(ops.cast(self.generator(first + noise, training=True), first.dtype))

    def train_step(self, batch):
        draws = self.train_draws()
        images = self.images_to_float(batch["images"])
        first = images[:, 0]
        noise = self.hparams.noise * draws.normal("noise", tf.shape(first), first.dtype)
        generator, critic = (self.optimizers_by_name[k].targets for k in ("generator", "critic"))
        with tf.GradientTape(persistent=True) as tape:
            predicted = self.predict_next(first, noise)
            mse = ops.mean(ops.square(predicted - images[:, 1]))
            level = ops.mean(predicted, axis=(1, 2))
            critic_loss = ops.mean(ops.square(self.critic(ops.stop_gradient(level)) - 1))
            bad = (self.step >= self.hparams.nan_from) & (self.step < self.hparams.nan_until)
            if self.hparams.nan_from >= 0:
                mse = mse / tf.where(bad, tf.zeros([], mse.dtype), tf.ones([], mse.dtype)) * 1.0
        logs = self.apply_gradients("generator", tape.gradient(mse, [v.value for v in generator]), self.hparams.lr)
        logs |= self.apply_gradients("critic", tape.gradient(critic_loss, [v.value for v in critic]), self.hparams.lr)
        self.finish_step()
        return {"mse": mse, "critic_loss": critic_loss, "noise": ops.mean(noise), **logs}

    def test_step(self, batch):
        images = self.images_to_float(batch["images"])
        predicted = self.predict_next(images[:, 0], 0)
        return {"mse": ops.mean(ops.square(predicted - images[:, 1]), axis=(1, 2, 3))}

    def generate(self, batch, seed, num_samples=1, horizon=None):
        images = self.images_to_float(tf.convert_to_tensor(batch["images"]))
        horizon = horizon or FRAMES - CONTEXT
        samples = []
        for i in range(num_samples):
            noise = self.hparams.noise * StatelessDraws(seed, i).normal("noise", tf.shape(images[:, 0]), images.dtype)
            samples.append(tf.stack([self.predict_next(images[:, 0], noise)] * horizon, axis=1))
        return {"images": tf.stack(samples)}


def toy_spec(channels=3):
    """Of one element."""
    return {"images": tf.TensorSpec([FRAMES, SIZE, SIZE, channels], tf.uint8)}


def toy_hparams(**values):
    """Complete hyper-parameters."""
    defaults = {"context_frames": CONTEXT, "sequence_length": FRAMES, "batch_size": 4, "max_steps": 12}
    return ToyHParams(**{**defaults, **values})


def toy_images(count, seed=0):
    """[count, T, H, W, 3] uint8: smooth ramps that brighten over time."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0, 150, (count, 1, 1, 1, 3)) + np.arange(SIZE)[:, None, None] * rng.uniform(
        0, 8, (count, 1, 1, 1, 1)
    )
    base = base + np.arange(FRAMES)[:, None, None, None] * 10 + np.zeros([SIZE, 1])
    return np.clip(base, 0, 255).astype("uint8")


def weights_of(model):
    """{path: array} of all weights, moments and counts."""
    state = {v.path: v.value.numpy() for v in model.weights}
    for name, optimizer in model.optimizers_by_name.items():
        slots = optimizer.state()
        for kind in ("m", "v"):
            state.update({f"{name}/{kind}/{path}": v.numpy() for path, v in slots.get(kind, {}).items()})
        if slots:
            state[f"{name}/counts"] = slots["counts"].numpy()
    return state


def write_toy_dataset(folder, train=24, val=6):
    """Records under `folder` that open_source("toy", folder) reads."""
    fields, splits = {}, {}
    for split, count, seed in (("train", train, 1), ("val", val, 2)):
        tf.io.gfile.makedirs(f"{folder}/{split}")
        name, size = f"{split}-00000-of-00001.tfrecord", 0
        with tf.io.TFRecordWriter(f"{folder}/{split}/{name}") as writer:
            for i, images in enumerate(toy_images(count, seed)):
                record, fields = encode_clip({"images": images}, f"{split}-{i}")
                writer.write(record)
                size += len(record) + 16
        file = {"clips": count, "frames": count * FRAMES, "bytes": size}
        splits[split] = {"clips": count, "frames": count * FRAMES, "files": {name: file}}
    defaults = {"context_frames": CONTEXT, "sequence_length": FRAMES, "long_sequence_length": FRAMES}
    DatasetInfo("toy", "ramps", 5.0, fields, splits, defaults, {}).save(folder)
