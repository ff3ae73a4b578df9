"""The table of metrics with one value for each predicted frame.

A `StepMetric` compares one key of a model's outputs (images, poses, boxes) with the truth.
What depends on the truth alone (features of a network, masks) is computed once for a
batch by `prepare`, not once for each of a hundred samples.
"""

import dataclasses
import difflib
import math
import typing

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.metrics import boxes, frames, poses, weights

# Identical frames count as this many decibels: an infinite one would make every mean infinite.
PSNR_LIMIT = 100.0
# Frames that a network sees at once, in pixels; more go through it in parts.
NETWORK_PIXELS = 2**21

# Shorter side of the frames, in pixels, from which a metric is defined: its window, or what its poolings need.
SMALLEST_SIDE = {"ssim": 11, "ssim_piq": 11, "ssim_skimage": 7, "lpips": 31, "lpips_vgg": 16, "vgg_cosine": 16}


@dataclasses.dataclass(frozen=True)
class StepMetric:
    """A metric with one value for each sequence and predicted step.

    Attributes:
      name: of the metric, also in file names.
      key: of the model's outputs and of the batch that it compares.
      higher_is_better: whether the best sample has the greatest value.
      doc: the protocol in one line, printed beside the numbers.
      compare: function (prepared, predicted [B, h, ...]) -> [B, h].
      prepare: function (clip, context) -> prepared; `clip` is {key: [B, context + h, ...]}.
      sign: what the CSV files multiply values by: -1 for LPIPS, which the original's files
        hold negated, so that its `max` is the best.
      checksum: SHA-256 of the network's weights, where there is one.
    """

    name: str
    key: str
    higher_is_better: bool
    doc: str
    compare: typing.Callable
    prepare: typing.Callable = None
    sign: int = 1
    checksum: str | None = None

    def prepared(self, clip, context):
        """What `compare` needs of the truth."""
        if self.prepare:
            return self.prepare(clip, context)
        return clip[self.key][:, context:]


def _psnr(options):
    floor = 10 ** (-PSNR_LIMIT / 10)
    return StepMetric(
        "psnr", "images", True,
        f"peak signal-to-noise ratio in dB, peak 1; identical frames count {PSNR_LIMIT:g} dB",
        lambda truth, predicted: frames.psnr(predicted, truth, floor=floor),
    )  # fmt: skip


def _mse(options):
    return StepMetric(
        "mse", "images", False, "mean squared error of images in [0, 1]",
        lambda truth, predicted: frames.mse(predicted, truth),
    )  # fmt: skip


def _ssim(options):
    return StepMetric(
        "ssim", "images", True,
        "structural similarity as tf.image.ssim: Gaussian 11x11, deviation 1.5, valid positions",
        lambda truth, predicted: frames.ssim(predicted, truth),
    )  # fmt: skip


def _ssim_skimage(options):
    return StepMetric(
        "ssim_skimage", "images", True,
        "structural similarity with scikit-image's defaults: uniform 7x7, sample covariance",
        lambda truth, predicted: frames.ssim_uniform(predicted, truth),
    )  # fmt: skip


def _ssim_piq(options):
    return StepMetric(
        "ssim_piq", "images", True,
        "structural similarity as piq: as ssim, frames of 384 pixels and more average-pooled first",
        lambda truth, predicted: frames.ssim(predicted, truth, downsample=True),
    )  # fmt: skip


def _motion_mse(options):
    def prepare(clip, context):
        # The last given frame is the one before the first predicted: movement into it counts.
        mask = frames.motion_mask(clip["images"][:, context - 1 :])[:, 1:]
        return clip["images"][:, context:], mask

    return StepMetric(
        "motion_mse", "images", False,
        "mean over all pixels of squared error times |x_t - x_(t-1)| of the true clip",
        lambda prepared, predicted: frames.masked_mse(predicted, *prepared), prepare,
    )  # fmt: skip


def _lpips(net):
    def build(options):
        network = weights.load(f"lpips_{net}", options.weights_dir)

        def prepare(clip, context):
            return _in_parts(network.features, clip["images"][:, context:])

        def compare(features, predicted):
            values = network.distance(features, _in_parts(network.features, predicted))
            return tf.reshape(values, tf.shape(predicted)[:2])

        names = {"alex": "AlexNet", "vgg": "VGG-16"}
        return StepMetric(
            "lpips" if net == "alex" else "lpips_vgg", "images", False,
            f"LPIPS 0.1 on {names[net]} with linear heads, images in [-1, 1] at their own size, grey repeated"
            " (the CSV files hold its negative, as the original's)",
            compare, prepare, sign=-1, checksum=weights.checksum(network),
        )  # fmt: skip

    return build


def _vgg_cosine(options):
    network = weights.load("vgg19", options.weights_dir)

    def features(images):
        if images.shape[-1] == 1:
            images = tf.repeat(images, 3, axis=-1)
        return network((images - 0.5) / (0.5 + 1e-6))

    def compare(truth, predicted):
        values = frames.cosine_similarity(truth, _in_parts(features, predicted))
        return tf.reshape(values, tf.shape(predicted)[:2])

    return StepMetric(
        "vgg_cosine", "images", True,
        "cosine of flattened VGG-19 features, mean over relu1_1 to relu5_1, images in [-1, 1]",
        compare, lambda clip, context: _in_parts(features, clip["images"][:, context:]),
        checksum=weights.checksum(network),
    )  # fmt: skip


def _pose_error(options):
    def prepare(clip, context):
        visible = clip.get("pose_visible")
        return clip["poses"][:, context:], None if visible is None else visible[:, context:]

    return StepMetric(
        "pose_error", "poses", False,
        f"mean distance of annotated joints, in {options.pose_unit}",
        lambda prepared, predicted: poses.mean_joint_error(
            predicted, prepared[0], prepared[1], scale=options.pose_scale
        ), prepare,
    )  # fmt: skip


def _pck(percent):
    def build(options):
        def prepare(clip, context):
            visible = clip.get("pose_visible")
            return clip["poses"][:, context:], None if visible is None else visible[:, context:]

        # The frame's side is two units of poses in [-1, 1]; 5 % are 6.4 pixels of 128.
        threshold = percent / 100 * 2
        return StepMetric(
            f"pck_{percent:02d}", "poses", True,
            f"share of annotated joints nearer than {percent} % of the frame's side, poses in [-1, 1]",
            lambda prepared, predicted: poses.correct_keypoints(predicted, prepared[0], threshold, prepared[1]),
            prepare,
        )  # fmt: skip

    return build


def _box_iou(options):
    return StepMetric(
        "box_iou", "boxes", True, "mean IoU over the objects of a frame, boxes clamped to the image",
        lambda truth, predicted: boxes.mean_iou(predicted, truth),
    )  # fmt: skip


def _box_iou_above(percent):
    def build(options):
        return StepMetric(
            f"box_iou_{percent}", "boxes", True, f"share of the objects of a frame with an IoU above {percent / 100}",
            lambda truth, predicted: boxes.iou_above(predicted, truth, percent / 100),
        )  # fmt: skip

    return build


# Name -> function of `Options`; which key it needs stands in FAMILIES.
TABLE = {
    "psnr": _psnr,
    "ssim": _ssim,
    "mse": _mse,
    "lpips": _lpips("alex"),
    "lpips_vgg": _lpips("vgg"),
    "ssim_skimage": _ssim_skimage,
    "ssim_piq": _ssim_piq,
    "motion_mse": _motion_mse,
    "vgg_cosine": _vgg_cosine,
    "pose_error": _pose_error,
    "pck_05": _pck(5),
    "pck_10": _pck(10),
    "box_iou": _box_iou,
    "box_iou_30": _box_iou_above(30),
    "box_iou_50": _box_iou_above(50),
}
# Output key -> metrics on it. The first DEFAULTS[key] of them run when none are asked for.
FAMILIES = {
    "images": ("psnr", "ssim", "mse", "lpips", "lpips_vgg", "ssim_skimage", "ssim_piq", "motion_mse", "vgg_cosine"),
    "poses": ("pose_error", "pck_05", "pck_10"),
    "boxes": ("box_iou", "box_iou_30", "box_iou_50"),
}
DEFAULTS = {"images": 4, "poses": 3, "boxes": 3}


@dataclasses.dataclass(frozen=True)
class Options:
    """What the construction of a metric may depend on.

    Attributes:
      weights_dir: folder of converted networks; None: the default one.
      pose_scale: factor from the unit of the poses to `pose_unit`.
      agent: `tfvid.evaluation.set_metrics.Agent`, or None.
    """

    weights_dir: str | None = None
    pose_scale: float = 1.0
    pose_unit: str = "the unit of the data"
    agent: object = None


def options_for(model, weights_dir=None):
    """Options that fit a model: a model with poses in other units than pixels says how many a unit is.

    `POSE_PIXELS` of a model class is the number of pixels in one unit of its poses.
    """
    pixels = getattr(model, "POSE_PIXELS", None)
    if pixels is None:
        return Options(weights_dir)
    return Options(weights_dir, float(pixels), "pixels")


def choose(names, keys):
    """Checked metric names: those asked for, or the defaults of the output keys there are.

    Args:
      names: asked for, empty for the defaults; "all" for every one that the keys allow.
      keys: keys that both the model's outputs and the data have.
    """
    if not names:
        return [name for key in FAMILIES if key in keys for name in FAMILIES[key][: DEFAULTS[key]]]
    possible = [name for key in FAMILIES if key in keys for name in FAMILIES[key]]
    if list(names) == ["all"]:
        return possible
    for name in names:
        if name not in TABLE:
            raise UserError(f"--metrics: unknown metric {name!r}{nearest(name, TABLE)}")
        if name not in possible:
            key = next(k for k, family in FAMILIES.items() if name in family)
            raise UserError(
                f"--metrics: {name} compares {key}, which this model's outputs or the data do not have"
                f" (both have: {', '.join(sorted(keys)) or 'nothing'})"
            )
    return list(dict.fromkeys(names))


def nearest(name, known):
    """The end of an error: the nearest known name, else all of them."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(known)}"


def build(names, options, side=None):
    """({name: StepMetric}, {name: reason it is left out}): missing weights or small frames stop no other metric.

    Args:
      side: the shorter side of the frames in pixels; None: not known, or none are compared.
    """
    built, skipped = {}, {}
    for name in names:
        try:
            metric = TABLE[name](options)
        except weights.WeightsMissing as e:
            skipped[name] = str(e)
            continue
        if side is not None and side < SMALLEST_SIDE.get(name, 0):
            skipped[name] = f"it needs frames with sides of {SMALLEST_SIDE[name]} pixels and more, these have {side}"
        else:
            built[name] = metric
    return built, skipped


def _in_parts(network, images):
    """Features of [B, h, H, W, C] frames, list of [B * h, ...]; a bounded number of pixels at once."""
    shape = images.shape
    flat = tf.reshape(images, (-1, *shape[2:]))  # [B * h, H, W, C]
    total, size = flat.shape[0], max(1, NETWORK_PIXELS // math.prod(shape[2:4]))
    if total is None or total <= size:
        return network(flat)
    parts = [network(flat[i : i + size]) for i in range(0, total, size)]
    return [tf.concat(level, axis=0) for level in zip(*parts)]
