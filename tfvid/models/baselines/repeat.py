"""The last context frame, repeated: the baseline that every model must beat."""

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.models.baselines.hparams import RepeatHParams
from tfvid.models.video_model import VideoModel


class Repeat(VideoModel):
    """Has no weights; its training step only counts."""

    HPARAMS = RepeatHParams

    def __init__(self, hparams, spec, seed=0, name=None):
        super().__init__(hparams, spec, seed, name)
        self.finish_build({})

    @tf.autograph.experimental.do_not_convert
    def train_step(self, batch):
        logs = {name: tf.reduce_mean(value) for name, value in self.test_step(batch).items()}
        self.finish_step()
        return logs

    @tf.autograph.experimental.do_not_convert
    def test_step(self, batch):
        images, context = self.images_to_float(batch["images"]), self.hparams.context_frames
        error = images[:, context:] - images[:, context - 1 : context]
        return {"mse": tf.reduce_mean(tf.square(error), axis=[1, 2, 3, 4])}

    def generate(self, batch, seed, num_samples=1, horizon=None):
        h = self.hparams
        images = self.images_to_float(tf.convert_to_tensor(batch["images"]))
        length = images.shape[1]
        if length < h.context_frames:
            raise UserError(f"generate: expected {h.context_frames} context frames. Received: {length}")
        if horizon is None:
            length = length if length > h.context_frames else h.sequence_length or self.spec["images"].shape[0]
            horizon = length - h.context_frames
        last = images[:, h.context_frames - 1]
        return {"images": tf.tile(last[None, :, None], [num_samples, 1, horizon, 1, 1, 1])}

    def signatures(self):
        """`serving_default`: images [B, context, H, W, C] in [0, 1], seed (without effect) -> images."""
        h = self.hparams
        horizon = (h.long_sequence_length or h.sequence_length or self.spec["images"].shape[0]) - h.context_frames
        shape = [None, h.context_frames, *self.spec["images"].shape[1:]]
        inputs = [tf.TensorSpec(shape, tf.float32, name="images"), tf.TensorSpec([], tf.int64, name="seed")]

        @tf.function(input_signature=inputs)
        def serve(images, seed):
            return {"images": self.generate({"images": images}, seed, horizon=horizon)["images"][0]}

        return {"serving_default": serve}
