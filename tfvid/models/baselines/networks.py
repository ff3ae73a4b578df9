"""The recurrent networks of SNA, SV2P and DNA, which all grew out of one program.

Source: Finn et al., "Unsupervised Learning for Physical Interaction through Video
Prediction" (2016), as kept in alexlee-gk/video_prediction, models/{sna,sv2p,dna}_model.py.
Layers carry the names and layouts of that program's variables. Maps are [B, H, W, C].
"""

import dataclasses

from keras import ops

from tfvid.layers.bound import BoundLayer, wide
from tfvid.layers.constant_channels import tile
from tfvid.layers.convolutions import conv2d
from tfvid.layers.norms import Norm
from tfvid.layers.warps import cdna_warp, dna_warp, normalize_kernels

LSTM_SIZE = 5
FIRST_CHANNELS = 32  # of the first convolution, in every variant


@dataclasses.dataclass(frozen=True)
class Variant:
    """In what the three programs differ.

    Attributes:
      channels: {number of the recurrent layer: channels}; SNA has no layers 2 and 4.
      transformation: "cdna" (one kernel an image) or "dna" (one kernel a pixel).
      kernel_size: of the warps.
      num_masks: warps that are predicted; 1 with dna.
      scratch_image: a synthesised frame is a candidate (cdna only).
      first_image_background: the first frame is a candidate in place of the previous one.
      use_all_warps: False: the last cdna warp is computed and never used, as it was in
        the programs that truncate a zip.
      relu_before_softmax: masks, and the scratch image before its sigmoid, pass a ReLU.
      relu_after_upsampling: the last transposed convolution has one.
      relu_on_pixel_kernels: the dna kernels have one.
      suffix: of the names of the layers that were changed for SNA.
    """

    channels: dict
    transformation: str
    kernel_size: tuple
    num_masks: int
    scratch_image: bool
    first_image_background: bool
    use_all_warps: bool
    relu_before_softmax: bool
    relu_after_upsampling: bool
    relu_on_pixel_kernels: bool
    suffix: str = ""

    @property
    def has_scratch(self):
        """Whether the synthesised frame exists."""
        return self.scratch_image and self.transformation == "cdna"

    @property
    def masks(self):
        """Number of candidates: background, scratch, warps."""
        if self.transformation == "dna":
            return 2
        warps = self.num_masks if self.use_all_warps else self.num_masks - 1
        return 1 + self.has_scratch + warps


class SlimConv2D(BoundLayer):
    """A convolution as tf.contrib.slim makes it: zero-padded, ReLU, a layer norm in the bias's place.

    Args:
      name: scope of `weights` and `biases`.
      inputs, outputs: channels.
      size: of the kernel.
      stride: of the convolution.
      transposed: doubles the map (or keeps it at stride 1); kernel [k, k, out, in].
      norm: name of the layer norm, None for a bias.
      relu: the activation, last.
    """

    def __init__(self, name, inputs, outputs, size, stride=1, transposed=False, norm=None, relu=True):
        super().__init__(name)
        self.stride, self.transposed, self.relu = stride, transposed, relu
        channels = (outputs, inputs) if transposed else (inputs, outputs)
        self.kernel = self.weight("weights", (size, size, *channels), "glorot_uniform")
        self.bias = None if norm else self.weight("biases", (outputs,), "zeros")
        with self.scope():
            self.norm = Norm("layer", outputs, norm) if norm else None

    def bind(self):
        kernel = self.read(self.kernel)
        bias = None if self.bias is None else self.read(self.bias)
        norm = None if self.norm is None else self.norm.bind()

        def apply(x):
            if self.transposed:
                x = ops.conv_transpose(x, kernel, self.stride, "same", data_format="channels_last")
            else:
                x = conv2d(x, kernel, self.stride)
            x = norm(x) if norm else x + bias
            return ops.relu(x) if self.relu else x

        return apply


class SlimDense(BoundLayer):
    """x [B, in] -> [B, out], linear; variables `weights` and `biases`."""

    def __init__(self, name, inputs, outputs):
        super().__init__(name)
        self.kernel = self.weight("weights", (inputs, outputs), "glorot_uniform")
        self.bias = self.weight("biases", (outputs,), "zeros")

    def bind(self):
        kernel, bias = self.read(self.kernel), self.read(self.bias)
        return lambda x: ops.matmul(x, kernel) + bias


class SlimConvLSTM(BoundLayer):
    """5x5 convolutional LSTM, gates i, j, f, o in `Gates`; its output alone is normed, its state is not."""

    def __init__(self, name, inputs, units):
        super().__init__(name)
        self.units = units
        with self.scope():
            self.gates = SlimConv2D("Gates", inputs + units, 4 * units, LSTM_SIZE, relu=False)

    def bind(self):
        gates = self.gates.bind()

        def step(x, state):
            c, h = state
            i, j, f, o = ops.split(gates(ops.concatenate([x, h], axis=-1)), 4, axis=-1)
            c = c * ops.sigmoid(f + 1) + ops.sigmoid(i) * ops.tanh(j)
            h = ops.tanh(c) * ops.sigmoid(o)
            return h, (c, h)

        return step


class RecurrentPredictor(BoundLayer):
    """One step: the frame before, action, state and latent map -> the next frame.

    Args:
      variant: a `Variant`.
      image: (height, width, channels); height and width divisible by 8.
      action, state: sizes of the vectors.
      conditional: whether (action, state) enter the network; the state is predicted anyway.
      latent: channels of the latent map [B, H/8, W/8, latent], 0 for none.
      encoder_frames: frames that the posterior sees, 0 for no posterior.
      name: scope of all variables.
    """

    def __init__(self, variant, image, action, state, conditional, latent=0, encoder_frames=0, name="generator"):
        super().__init__(name)
        self.variant, self.image, self.latent = variant, image, latent
        self.conditional = conditional
        height, width, channels = image
        c = variant.channels
        with self.scope():
            self.convolutions = self._make_convolutions(channels, latent + (action + state if conditional else 0))
            inputs = {1: FIRST_CHANNELS, 2: c[1], 3: c[1], 4: c[3], 5: c[3], 6: c[5], 7: c[6] + c[1]}
            self.cells = {str(n): SlimConvLSTM(f"state{n}", inputs[n], units) for n, units in c.items()}
            self.norms = {str(n): Norm("layer", units, f"layer_norm{n + 1}") for n, units in c.items()}
            self.kernels = self._make_kernels(height // 8 * (width // 8) * c[5], c[7] + FIRST_CHANNELS)
            self.state_pred = SlimDense("state_pred", action + state, state)
            self.encoder = _make_encoder(encoder_frames * channels, latent) if encoder_frames else {}

    def _make_convolutions(self, channels, low):
        v, c = self.variant, self.variant.channels
        features = c[7] + FIRST_CHANNELS  # of the last map, which masks and scratch image read
        layers = [
            SlimConv2D("scale1_conv1", channels, FIRST_CHANNELS, 5, stride=2, norm="layer_norm1"),
            SlimConv2D("conv2", c[1], c[1], 3, stride=2),
            SlimConv2D("conv3", c[3], c[3], 3, stride=2),
            SlimConv2D("conv4", c[3] + low, c[3], 1),
            SlimConv2D("convt1", c[5], c[5], 3, stride=2, transposed=True),
            SlimConv2D("convt2", c[6] + c[1], c[6] + c[1], 3, stride=2, transposed=True),
            SlimConv2D(
                "convt3", features, features, 3, stride=2, transposed=True, norm="layer_norm9",
                relu=v.relu_after_upsampling,
            ),
            SlimConv2D(f"convt7{v.suffix}", features, v.masks, 1, transposed=True, relu=v.relu_before_softmax),
        ]  # fmt: skip
        if v.has_scratch:
            layers.append(SlimConv2D("convt4", features, channels, 1, transposed=True, relu=v.relu_before_softmax))
        return {layer.name: layer for layer in layers}

    def _make_kernels(self, flat, features):
        v = self.variant
        taps = v.kernel_size[0] * v.kernel_size[1]
        if v.transformation == "cdna":
            return SlimDense("cdna_params", flat, taps * v.num_masks)
        return SlimConv2D(f"convt4{v.suffix}", features, taps, 1, transposed=True, relu=v.relu_on_pixel_kernels)

    def zero_state(self, batch):
        """The recurrent layers' states before the first step: {number: (c, h)}."""
        height, width, _ = self.image
        scale = {1: 2, 2: 2, 3: 4, 4: 4, 5: 8, 6: 4, 7: 2}
        state = {}
        for n, cell in self.cells.items():
            shape = (batch, height // scale[int(n)], width // scale[int(n)], cell.units)
            state[n] = (ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype))
        return state

    def bind(self):
        """Returns step(image, first_image, action, state, latent, recurrent).

        image, first_image [B, H, W, C] in [0, 1]; action [B, A]; state [B, S]; latent
        [B, H/8, W/8, latent] or None; recurrent as `zero_state` gives it. The step
        returns (next image [B, H, W, C] in [0, 1], masks [B, H, W, M], next state
        [B, S], recurrent).
        """
        features, composite, predict_state = self._bind_features(), self._bind_composite(), self.state_pred.bind()

        def step(image, first_image, action, state, latent, recurrent):
            vector = ops.concatenate([ops.cast(action, self.compute_dtype), ops.cast(state, self.compute_dtype)], -1)
            low, high, recurrent = features(ops.cast(image, self.compute_dtype), vector, latent, recurrent)
            next_image, masks = composite(image, first_image, low, high)
            return next_image, masks, wide(predict_state(vector)), recurrent

        return step

    def _bind_features(self):
        conv = {name: layer.bind() for name, layer in self.convolutions.items()}
        cells = {n: cell.bind() for n, cell in self.cells.items()}
        norms = {n: norm.bind() for n, norm in self.norms.items()}

        def features(image, vector, latent, recurrent):
            recurrent = dict(recurrent)

            def recur(n, x):
                if n not in cells:
                    return x
                h, recurrent[n] = cells[n](x, recurrent[n])
                return norms[n](h)

            enc0 = conv["scale1_conv1"](image)  # H/2
            enc1 = conv["conv2"](recur("2", recur("1", enc0)))  # H/4
            enc2 = conv["conv3"](recur("4", recur("3", enc1)))  # H/8
            low = [enc2]
            if self.conditional:
                low.append(tile(vector, enc2))
            if latent is not None:
                low.append(ops.cast(latent, self.compute_dtype))
            enc3 = conv["conv4"](ops.concatenate(low, axis=-1))
            h5 = recur("5", enc3)
            h6 = recur("6", conv["convt1"](h5))
            h7 = recur("7", conv["convt2"](ops.concatenate([h6, enc1], axis=-1)))
            return h5, conv["convt3"](ops.concatenate([h7, enc0], axis=-1)), recurrent

        return features

    def _bind_composite(self):
        v = self.variant
        mask_logits, kernels = self.convolutions[f"convt7{v.suffix}"].bind(), self.kernels.bind()
        scratch = self.convolutions["convt4"].bind() if v.has_scratch else None

        def composite(image, first_image, low, high):
            masks = ops.softmax(wide(mask_logits(high)), axis=-1)  # [B, H, W, M]
            candidates = [first_image if v.first_image_background else image]
            if scratch:
                candidates.append(ops.sigmoid(wide(scratch(high))))
            # SV2P and DNA have one mask less than candidates and leave the last warp out.
            candidates += self._warps(image, kernels, low, high)[: v.masks - len(candidates)]
            return sum(masks[..., m, None] * candidate for m, candidate in enumerate(candidates)), masks

        return composite

    def _warps(self, image, kernels, low, high):
        """The warped images, zeros outside of the frame: list of [B, H, W, C]."""
        kh, kw = self.variant.kernel_size
        if self.variant.transformation == "cdna":
            flat = ops.reshape(low, (-1, low.shape[1] * low.shape[2] * low.shape[3]))
            weights = ops.reshape(wide(kernels(flat)), (-1, kh, kw, self.variant.num_masks))
            warped = cdna_warp(image, normalize_kernels(weights, (1, 2)), mode="constant")
        else:
            weights = normalize_kernels(wide(kernels(high)), -1)  # [B, H, W, kh * kw], row-major taps
            weights = ops.reshape(weights, (-1, *image.shape[1:3], kh, kw, 1))
            warped = dna_warp(image, weights, mode="constant")
        return ops.unstack(warped, axis=3)

    def bind_encoder(self):
        """Returns a function of all frames [B, H, W, T * C] -> (mean, log variance before its offset).

        Both [B, H/8, W/8, latent].
        """
        layers = {name: layer.bind() for name, layer in self.encoder.items()}

        def encode(frames):
            x = ops.cast(frames, self.compute_dtype)
            for name in ("latent_conv1", "latent_conv2", "latent_conv3"):
                x = layers[name](x)
            return wide(layers["latent_mean"](x)), wide(layers["latent_std"](x))

        return encode


def _make_encoder(inputs, latent):
    """SV2P's posterior: it sees all frames of the clip at once, along the channels."""
    layers = [
        SlimConv2D("latent_conv1", inputs, 32, 3, stride=2, norm="latent_norm1"),
        SlimConv2D("latent_conv2", 32, 64, 3, stride=2, norm="latent_norm2"),
        SlimConv2D("latent_conv3", 64, 64, 3, norm="latent_norm3"),
        SlimConv2D("latent_mean", 64, latent, 3, stride=2, norm="latent_norm_mean", relu=False),
        SlimConv2D("latent_std", 64, latent, 3, stride=2, norm="latent_std_norm"),
    ]
    return {layer.name: layer for layer in layers}
