"""The original's checkpoints: names of its variables, files of a snapshot.

A snapshot is `<epoch>_im_encode_content_<iteration>.pt` (pose decoder),
`..._im_encode_vae_...`, and of the pose-to-image stage also `..._generator_...` and
`..._classifier_...`; published ones go without numbers. Each holds {"a": state dict}.
"""

from tfvid.conversion.assign import Source, conv2d_kernel, conv2d_transpose_kernel, dense_kernel

# Name of the network inside the original program -> middle of its file's name.
FILES = {
    "image_enc_vae": "im_encode_vae",
    "image_enc_content": "im_encode_content",
    "generator": "generator",
    "classifier": "classifier",
}


def variable_map(model):
    """{path of a variable: its Source in the original}, for `tfvid.conversion.assign`.

    Names are those inside the original program: the network's prefix and the name in
    its file, e.g. "image_enc_vae.rnn.weight_ih_l0".

    Args:
      model: `ActVAE` or `ActVAEP2I`.
    """
    entries = [
        *_lstm("image_enc_vae.rnn", model.pose_network.temporal_vae.cell),
        *_lstm("image_enc_content.rnn", model.pose_network.decoder.cell),
    ]
    if hasattr(model, "generator"):
        entries += _generator(model.generator) + _discriminator(model.discriminator)
        if model.vgg is not None:
            for name, layer in model.vgg.torch_names().items():
                entries += _conv(f"criterionVGG.vgg.{name}", layer)
    return {variable.path: source for variable, source in entries}


def _lstm(name, cell):
    return [
        (cell.kernel, Source(f"{name}.weight_ih_l0", dense_kernel)),
        (cell.recurrent_kernel, Source(f"{name}.weight_hh_l0", dense_kernel)),
        (cell.bias_input, Source(f"{name}.bias_ih_l0")),
        (cell.bias_recurrent, Source(f"{name}.bias_hh_l0")),
    ]


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
