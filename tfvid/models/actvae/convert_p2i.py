"""The original's checkpoints of the pose-to-image stage: names of its variables.

Files as in `convert`, and `generator`, `classifier` (the discriminator, which published
archives may lack).
"""

import tensorflow as tf

from tfvid.conversion.assign import Source, conv2d_kernel, conv2d_transpose_kernel
from tfvid.models.actvae import convert

FILES = {**convert.FILES, "generator": "generator", "classifier": "classifier"}

is_ignorable = convert.is_ignorable


def read_source(path):
    """{name inside the original program: array} of the newest snapshot of a folder, or of the one a file is of."""
    return convert.read_snapshot(path, FILES, optional=("classifier",))


def is_optional(path):
    """The discriminator is only needed to train on."""
    return path.startswith("discriminator/")


def data_spec(hparams):
    """Frames and poses that the published model was trained on."""
    length, size = hparams.sequence_length or 1 + hparams.targets, hparams.image_size
    return {**convert.data_spec(hparams), "images": tf.TensorSpec([length, size, size, 3], tf.uint8)}


def variable_map(model):
    """{path of a variable: its Source in the original}; names as in `convert.variable_map`."""
    entries = _generator(model.generator) + _discriminator(model.discriminator)
    return {**convert.variable_map(model), **{variable.path: source for variable, source in entries}}


def _conv(name, layer, kernel=conv2d_kernel):
    entries = [(layer.kernel, Source(f"{name}.weight", kernel))]
    return entries if layer.bias is None else [*entries, (layer.bias, Source(f"{name}.bias"))]


def _norm(name, norm):
    entries = [(norm.scale, Source(f"{name}.weight")), (norm.shift, Source(f"{name}.bias"))] if norm.affine else []
    return [
        *entries,
        (norm.running_mean, Source(f"{name}.running_mean")),
        (norm.running_variance, Source(f"{name}.running_var")),
        (norm.num_batches_tracked, Source(f"{name}.num_batches_tracked")),
    ]


def _conv_norm(name, index, layer):
    """A convolution at `index` of a sequence and the norm behind it."""
    return _conv(f"{name}.{index}", layer.conv) + _norm(f"{name}.{index + 1}", layer.norm)


def _generator(net):
    entries = []
    for stream, encoder in ((1, net.image_encoder), (2, net.pose_encoder)):
        for index, stage in zip((1, 4, 7), encoder.stages):
            entries += _conv_norm(f"generator.model_stream{stream}_down", index, stage)
    for i, block in enumerate(net.blocks):
        image, pose = (f"generator.att.{i}.conv_block_stream{stream}" for stream in (1, 2))
        entries += _conv_norm(image, 1, block.image1) + _conv_norm(image, 5, block.image2)
        entries += _conv_norm(pose, 1, block.pose1) + _conv(f"{pose}.5", block.pose2)
    for i, (up, norm) in enumerate(((net.up1, net.up1_norm), (net.up2, net.up2_norm)), 1):
        entries += _conv(f"generator.model_stream1_up_{i}.0", up, conv2d_transpose_kernel)
        entries += _norm(f"generator.model_stream1_up_{i}_bn.bn", norm.norm)
        entries += [(norm.table, Source(f"generator.model_stream1_up_{i}_bn.embed.weight"))]
    return entries + _conv("generator.model_stream1_up.1", net.head)


def _discriminator(net):
    entries = _conv_norm("classifier.model1", 1, net.first)
    for i, layer in enumerate(net.down, 2):
        entries += _conv_norm(f"classifier.model{i}", 0, layer)
    for i, (first, second) in enumerate(net.residual):
        name = f"classifier.model_res.{i}.conv_block"
        entries += _conv_norm(name, 1, first) + _conv_norm(name, 5, second)
    return entries
