"""The generator's recurrent cell: warp and composite (Lee et al., 2018, section 3.3; original DNACell/SAVPCell).

One step takes the current frame and gives the next one, a blend of warps of the last
frames, known frames and a synthesised frame under softmax masks.
"""

import math

from keras import ops

from tfvid.layers import warps, winograd, xla
from tfvid.layers.bound import BoundLayer, wide
from tfvid.layers.conv_recurrent import CONV_CELLS
from tfvid.layers.convolutions import Conv2D, Dense, activation
from tfvid.layers.norms import norm_layer
from tfvid.layers.recurrent import CELLS
from tfvid.models.savp.networks_encoder import Head


def layer_plan(height, width, ngf):
    """([(channels, has conv RNN)] of the encoder, the same of the decoder) for an image size."""
    side = min(height, width)
    if side >= 256:
        encoder = ((1, False), (2, False), (4, True), (8, True), (8, True))
        decoder = ((8, True), (4, True), (2, False), (1, False), (1, False))
    elif side >= 128:
        encoder = ((1, False), (2, True), (4, True), (8, True))
        decoder = ((8, True), (4, True), (2, False), (1, False))
    elif side >= 64:
        encoder = ((1, True), (2, True), (4, True))
        decoder = ((2, True), (1, True), (1, False))
    elif side >= 32:
        encoder = ((1, True), (2, True))
        decoder = ((1, True), (1, False))
    else:
        raise ValueError(f"expected frames of 32 pixels or more on the shorter side. Received: {height}x{width}")
    return tuple(tuple((m * ngf, rnn) for m, rnn in part) for part in (encoder, decoder))


class ConvBlock(BoundLayer):
    """Convolution of any kind, maybe with the vector, norm, activation.

    Args:
      name: scope, e.g. "h0".
      inputs, outputs: channels.
      size, kind: of the convolution, see `Conv2D`.
      vector: size of the vector that this block sees, 0 for none.
      hparams: SAVPHParams.
      stride: of kind "conv2d".
    """

    def __init__(self, name, inputs, outputs, size, kind, vector, hparams, stride=1):
        super().__init__(name)
        self.vector, self.tile = vector, hparams.use_tile_concat
        self.activation = activation(hparams.activation_layer)
        with self.scope():
            self.conv = Conv2D(inputs, outputs, size, kind, stride, vector=vector if self.tile else 0)
            self.dense = Dense(vector, outputs, use_bias=False) if vector and not self.tile else None
            self.norm = norm_layer(hparams.norm_layer, outputs)

    def bind(self):
        conv, norm = self.conv.bind(), self.norm.bind()
        dense = None if self.dense is None else self.dense.bind()

        def apply(maps, vector=None):
            x = maps[0] if len(maps) == 1 else ops.concatenate(maps, axis=-1)
            x = conv(x, vector) if self.vector and self.tile else conv(x)
            if dense is not None:
                x = x + dense(vector)[:, None, None, :]
            return self.activation(norm(x))

        return apply


class ConvRNN(BoundLayer):
    """A convolutional recurrent cell, and a norm after it in the ablation.

    <conv_rnn>_h{i}/<cell>/..., and <conv_rnn>_h{i}/InstanceNorm in the ablation, where the
    cell has no norm and the state stays un-normed.
    """

    def __init__(self, index, channels, vector, hparams):
        super().__init__(f"{hparams.conv_rnn}_h{index}")
        self.vector = vector
        norm = "none" if hparams.ablation_conv_rnn_norm else hparams.conv_rnn_norm_layer
        with self.scope():
            cell = CONV_CELLS[hparams.conv_rnn]
            self.cell = cell(channels, channels, vector, hparams.use_tile_concat, norm)
            after = hparams.conv_rnn_norm_layer if hparams.ablation_conv_rnn_norm else "none"
            self.norm = norm_layer(after, channels)

    def bind(self):
        cell, norm = self.cell.bind(), self.norm.bind()

        def step(x, vector, state):
            y, state = cell(x, vector if self.vector else None, state)
            return norm(y), state

        return step


class LatentRNN(BoundLayer):
    """The latent's way into the cell: <rnn>_z/<cell>."""

    def __init__(self, hparams):
        super().__init__(f"{hparams.rnn}_z")
        with self.scope():
            self.cell = CELLS[hparams.rnn](hparams.nz, hparams.nz)

    def bind(self):
        return self.cell.bind()


class SAVPCell(BoundLayer):
    """One step of the generator.

    Args:
      shape: (H, W, C) of a frame.
      actions, states: sizes, 0 for none.
      hparams: SAVPHParams.
    """

    def __init__(self, shape, actions, states, hparams):
        super().__init__("savp_cell")
        self.hparams, self.image_shape = hparams, tuple(shape)
        self.actions, self.states = actions, states
        height, width, channels = shape
        self.vector = actions + states + hparams.nz
        self.encoder_plan, self.decoder_plan = layer_plan(height, width, hparams.ngf)
        self.num_layers = len(self.encoder_plan) + len(self.decoder_plan)
        self.warped = hparams.num_transformed_images * hparams.last_frames
        with self.scope():
            self._make_latent(hparams)
            self._make_layers(channels, hparams)
            self._make_outputs(channels, hparams)

    def _make_latent(self, hparams):
        self.latent_rnn = self.latent_dense = None
        if hparams.nz and hparams.use_rnn_z:
            if hparams.ablation_rnn:
                self.latent_dense = Head("fc_z", hparams.nz, hparams.nz)
            else:
                self.latent_rnn = LatentRNN(hparams)

    def _make_layers(self, channels, hparams):
        everywhere = self.vector if hparams.where_add == "all" else 0
        first = self.vector if hparams.where_add in ("all", "input") else 0
        middle = self.vector if hparams.where_add in ("all", "middle") else 0
        down, up = hparams.downsample_layer.removesuffix("_v2"), hparams.upsample_layer.removesuffix("_v2")
        self.blocks, self.rnns = [], []
        inputs, depth = 2 * channels, len(self.encoder_plan)
        for i, (width, recurrent) in enumerate(self.encoder_plan):
            vector = everywhere if i else first
            self.blocks.append(ConvBlock(f"h{i}", inputs, width, 3 if i else 5, down, vector, hparams, stride=2))
            self.rnns.append(self._recurrent(i, width, everywhere, hparams) if recurrent else None)
            inputs = width
        for i, (width, recurrent) in enumerate(self.decoder_plan):
            vector = everywhere if i else middle
            skip = self.encoder_plan[depth - 1 - i][0] if i else 0
            self.blocks.append(ConvBlock(f"h{depth + i}", inputs + skip, width, 3, up, vector, hparams))
            self.rnns.append(self._recurrent(depth + i, width, everywhere, hparams) if recurrent else None)
            inputs = width

    def _recurrent(self, index, width, vector, hparams):
        if hparams.ablation_rnn:
            return ConvBlock(f"conv_h{index}", width, width, 5, "conv2d", vector, hparams)
        return ConvRNN(index, width, vector, hparams)

    def _make_outputs(self, channels, hparams):
        n, ngf, (kh, kw) = self.num_layers, hparams.ngf, hparams.kernel_size
        self.kernel_block = self.kernel_head = None
        if self.warped and hparams.transformation == "cdna":
            height, width, _ = self.image_shape
            factor = 2 ** len(self.encoder_plan)
            features = (height // factor) * (width // factor) * self.encoder_plan[-1][0]
            self.kernel_head = Head("cdna_kernels", features, kh * kw * self.warped)
        elif self.warped:
            name, head, size = {
                "dna": ("dna_kernel", "dna_kernels", kh * kw), "flow": ("flow", "flows", 2),
            }[hparams.transformation]
            self.kernel_block = self._feature_block(f"h{n}_{name}")
            self.kernel_head = ConvHead(head, ngf, size * self.warped)
        self.scratch_block = self.scratch_head = None
        if hparams.generate_scratch_image:
            self.scratch_block = self._feature_block(f"h{n}_scratch")
            self.scratch_head = ConvHead("scratch_image", ngf, channels)
        self.mask_block = self.mask_head = None
        self.num_masks = self.warped + self._num_backgrounds() + hparams.generate_scratch_image
        if self.num_masks > 1:
            self.mask_block = self._feature_block(f"h{n}_masks")
            seen = ngf + (self.num_masks * channels if hparams.dependent_mask else 0)
            self.mask_head = ConvHead("masks", seen, self.num_masks)
        inputs = self.actions + self.states
        self.state_pred = Head("state_pred", inputs, self.states) if self.states else None

    def _feature_block(self, name):
        ngf = self.hparams.ngf
        return ConvBlock(name, ngf, ngf, 3, "conv2d", 0, self.hparams)

    def _num_backgrounds(self):
        h = self.hparams
        if h.context_images_background:
            return h.prev_image_background + h.context_frames
        flags = (
            h.prev_image_background, h.first_image_background, h.last_image_background,
            h.last_context_image_background,
        )
        return sum(flags)

    def state_shapes(self):
        """Shapes without batch of the recurrent states, in the order of `initial_states`."""
        shapes, size = [], list(self.image_shape[:2])
        depth = len(self.encoder_plan)
        copies = 2 if self.hparams.conv_rnn == "lstm" else 1
        for i, rnn in enumerate(self.rnns):
            size = [n // 2 for n in size] if i < depth else [2 * n for n in size]
            if isinstance(rnn, ConvRNN):
                shapes.append([(*size, rnn.cell.units)] * copies)
        if self.latent_rnn is not None:
            shapes.append([(self.hparams.nz,)] * (2 if self.hparams.rnn == "lstm" else 1))
        return shapes

    def gains_by_xla(self):
        """Whether a step is faster as a whole in XLA: where Winograd's method pays for its recurrent convolutions."""
        cells = [rnn.cell for rnn in self.rnns if isinstance(rnn, ConvRNN)]
        sizes = [shapes[0][:2] for shapes in self.state_shapes()]
        return xla.allowed(self.compute_dtype) and any(
            winograd.paying_block(cell.widest_kernel, None, *size, least=winograd.LEAST_BLOCKS_BOUND)
            for cell, size in zip(cells, sizes)
        )

    def bind(self):
        """Returns step(carry, inputs, known) -> (outputs, carry).

        carry: {"images": the last `last_frames` frames, oldest first; "states": list of
          recurrent states; "pix_distribs": the same of pixel distributions}.
        inputs: {"image" [B, H, W, C], and "action" [B, A], "state" [B, D], "z" [B, nz],
          "pix_distrib" [B, H, W, P] where there are such}.
        known: {"image": list of the background frames after the previous one, in order,
          "pix_distrib": the same}.
        outputs: {"image", "masks" [B, H, W, M], "candidates" [B, H, W, M, C], and "state",
          "flows" [B, H, W, 2, K], "pix_distrib", "pix_candidates" where there are such}.
        """
        return _Step(self)


class ConvHead(BoundLayer):
    """A 3x3 convolution under a name of its own: <name>/conv2d/{kernel,bias}."""

    def __init__(self, name, inputs, outputs):
        super().__init__(name)
        with self.scope():
            self.conv = Conv2D(inputs, outputs, 3)

    def bind(self):
        return self.conv.bind()


class _Step:
    """The bound cell: what SAVPCell.bind returns."""

    def __init__(self, cell):
        self.cell, self.hparams, self.dtype = cell, cell.hparams, cell.compute_dtype

        def bound(layer):
            return None if layer is None else layer.bind()

        self.blocks, self.rnns = [b.bind() for b in cell.blocks], [bound(r) for r in cell.rnns]
        self.latent_rnn, self.latent_dense = bound(cell.latent_rnn), bound(cell.latent_dense)
        self.kernel_block, self.kernel_head = bound(cell.kernel_block), bound(cell.kernel_head)
        self.scratch_block, self.scratch_head = bound(cell.scratch_block), bound(cell.scratch_head)
        self.mask_block, self.mask_head = bound(cell.mask_block), bound(cell.mask_head)
        self.state_pred = bound(cell.state_pred)

    def __call__(self, carry, inputs, known):
        carry = {**carry, "images": [*carry["images"][1:], inputs["image"]]}
        pixels = "pix_distrib" in inputs
        if pixels:
            carry["pix_distribs"] = [*carry["pix_distribs"][1:], inputs["pix_distrib"]]
        vector, states = self._vector(inputs, carry["states"])
        features, smallest, states = self._features(inputs["image"], known["first"], vector, states)
        carry["states"] = states

        outputs, kernels = {}, self._kernels(features, smallest)
        if self.hparams.has_flows:
            outputs["flows"] = kernels
        scratch = None if self.scratch_head is None else self._scratch(features)
        candidates = self._candidates(carry["images"], kernels, known["image"], scratch)
        masks = self._masks(features, candidates)
        outputs["candidates"], outputs["masks"] = candidates, masks
        outputs["image"] = ops.sum(candidates * masks[..., None], axis=3)
        if pixels:
            # The scratch slot has no pixels of its own: they stay where they are.
            last = inputs["pix_distrib"] if scratch is not None else None
            moved = self._candidates(carry["pix_distribs"], kernels, known["pix_distrib"], last)
            total = ops.sum(moved * masks[..., None], axis=3)
            outputs["pix_candidates"] = moved
            outputs["pix_distrib"] = total / ops.sum(total, axis=(1, 2), keepdims=True)
        if self.state_pred is not None:
            parts = [inputs[k] for k in ("action", "state") if k in inputs]
            outputs["state"] = wide(self.state_pred(ops.cast(ops.concatenate(parts, -1), self.dtype)))
        return outputs, carry

    def _vector(self, inputs, states):
        """Action, state and latent side by side: what conditions the layers. [B, S] or None."""
        parts = []
        if "action" in inputs:
            parts.append(ops.cast(inputs["action"], self.dtype))
        if "state" in inputs:
            parts.append(ops.cast(ops.stop_gradient(inputs["state"]), self.dtype))
        if "z" in inputs:
            z = ops.cast(inputs["z"], self.dtype)
            if self.latent_rnn is not None:
                z, state = self.latent_rnn(z, states[-1])
                states = [*states[:-1], state]
            elif self.latent_dense is not None:
                z = ops.tanh(self.latent_dense(z))
            parts.append(z)
        if not parts:
            return None, states
        return (parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)), states

    def _features(self, image, first, vector, states):
        """(last decoder output [B, H, W, ngf], last encoder output, recurrent states)."""
        depth, x = len(self.cell.encoder_plan), None
        skips, states, new = [], list(states), []
        for i, (block, rnn) in enumerate(zip(self.blocks, self.rnns)):
            if i == 0:
                maps = [ops.cast(image, self.dtype), ops.cast(first, self.dtype)]
            elif i > depth:
                maps = [x, skips[2 * depth - 1 - i]]
            else:
                maps = [x]
            x = block(maps, vector)
            if rnn is not None and isinstance(self.cell.rnns[i], ConvRNN):
                x, state = rnn(x, vector, states[len(new)])
                new.append(state)
            elif rnn is not None:
                x = rnn([x], vector)
            if i < depth:
                skips.append(x)
        return x, skips[-1], [*new, *states[len(new) :]]

    def _kernels(self, features, smallest):
        """cdna [B, kh, kw, K], dna [B, H, W, kh, kw, K], flow [B, H, W, 2, K], or None without warps."""
        if self.kernel_head is None:
            return None
        (kh, kw), k = self.hparams.kernel_size, self.cell.warped
        if self.hparams.transformation == "cdna":
            raw = wide(self.kernel_head(ops.reshape(smallest, (-1, math.prod(smallest.shape[1:])))))
            raw, axes = ops.reshape(raw, (-1, kh, kw, k)), (1, 2)
        else:
            raw = wide(self.kernel_head(self.kernel_block([features])))
            height, width = raw.shape[1:3]
            if self.hparams.transformation == "flow":
                return ops.reshape(raw, (-1, height, width, 2, k))
            raw, axes = ops.reshape(raw, (-1, height, width, kh, kw, k)), (3, 4)
        identity = ops.cast(ops.convert_to_tensor(warps.identity_kernel((kh, kw))), raw.dtype)[:, :, None]
        return warps.normalize_kernels(raw + identity, axes)

    def _scratch(self, features):
        return ops.sigmoid(wide(self.scratch_head(self.scratch_block([features]))))

    def _candidates(self, last, kernels, backgrounds, scratch):
        """[B, H, W, M, C]: warps of each of the last frames, backgrounds, scratch."""
        parts = []
        if kernels is not None:
            n = self.hparams.num_transformed_images
            warp = {"cdna": warps.cdna_warp, "dna": warps.dna_warp, "flow": warps.flow_warp}
            for i, image in enumerate(last):
                own = kernels[..., i * n : (i + 1) * n]
                parts.append(warp[self.hparams.transformation](image, ops.cast(own, image.dtype)))
        if self.hparams.prev_image_background:
            parts.append(last[-1][:, :, :, None])
        parts.extend(x[:, :, :, None] for x in backgrounds)
        if scratch is not None:
            parts.append(scratch[:, :, :, None])
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=3)

    def _masks(self, features, candidates):
        """Softmax over the candidates, [B, H, W, M]."""
        if self.mask_head is None:
            return ops.ones_like(candidates[..., 0])
        x = self.mask_block([features])
        if self.hparams.dependent_mask:
            height, width, m, c = candidates.shape[1:]
            flat = ops.reshape(candidates, (-1, height, width, m * c))
            x = ops.concatenate([x, ops.cast(flat, self.dtype)], axis=-1)
        return ops.softmax(wide(self.mask_head(x)), axis=-1)

