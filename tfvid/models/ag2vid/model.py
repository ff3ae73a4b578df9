"""AG2Vid: video from an action graph (Bar et al., "Compositional Video Synthesis with Action Graphs", ICML 2021)."""

import colorsys

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.layers import grouped_conv, xla
from tfvid.layers.shared_function import shared_function
from tfvid.layers.torch_conv import TorchConv2D
from tfvid.losses.reconstruction import mean_absolute
from tfvid.metrics import boxes as box_metrics
from tfvid.metrics import frames as frame_metrics
from tfvid.models import float_policy
from tfvid.models.ag2vid import losses as losses_lib
from tfvid.models.ag2vid.graph_inputs import GRAPH_KEYS, TIMED_KEYS, graph_inputs, to_corners, window
from tfvid.models.ag2vid.hparams import AG2VidHParams
from tfvid.models.ag2vid.layout import concat_layouts, make_layout
from tfvid.models.ag2vid.networks_discriminator import ActionDiscriminator
from tfvid.models.ag2vid.networks_graph import ActionGraphModel, AttributeEmbedding
from tfvid.models.ag2vid.networks_video import UPSAMPLINGS, VideoGenerator, first_size, resample
from tfvid.models.optimizers import Adam
from tfvid.models.perceptual import PerceptualVGG, features_of, loss_by_slices
from tfvid.models.recompute import recomputed
from tfvid.models.video_model import VideoModel, weighted_sum

# ImageNet's, by which all frames are normalised.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class AG2Vid(VideoModel):
    """Moves boxes along an action graph and draws the frames that go with them.

    Batch, keys of the data: `images` [B, T, H, W, 3], `objects` [B, O, A] attribute indices,
    `boxes` [B, T, O, 4] corners, `relations` [B, T, K, 3], `timed_actions` [B, N, 3],
    `action_progress` [B, T, N], `action_destinations` [B, N, 2]. Networks and losses take
    what `graph_inputs` makes of it: `objects`, `boxes` (x0, y0, w, h), `triplets`
    [B, T, K', 3], `action_graph` [B, N, 7] (subject, action, object, f1, f2, x_end, y_end).

    The boxes are trained on whole clips, the frames on windows of `frames_per_action`
    frames of the same clips; the original loads the two from different clips.
    The model is deterministic: samples of one graph are equal.
    """

    HPARAMS = AG2VidHParams
    REQUIRED_KEYS = ("objects", "boxes", "timed_actions", "action_progress", "action_destinations")
    OPTIONAL_KEYS = ("images", "relations")
    TRAINING_NETWORKS = ("discriminator",)

    def __init__(self, hparams, spec, seed=0, name="ag2vid"):
        super().__init__(hparams, spec, seed=seed, name=name)
        h = hparams
        self._generators = {}
        self.perceptual = None
        graph = {
            "embedding_dim": h.embedding_dim,
            "graph_dim": h.gconv_dim,
            "hidden_dim": h.gconv_hidden_dim,
            "pooling": h.gconv_pooling,
            "share": shared_function,
        }
        vocabulary = (h.attribute_sizes, h.num_predicates, h.num_actions)

        def mover(name):
            return ActionGraphModel(
                *vocabulary, num_layers=h.gconv_num_layers, only_actions=h.only_temporal, name=name, **graph
            )

        with self._wide():
            self.acts_to_boxes = mover("acts_to_boxes")
        optimizers = {"graph": self._adam(self.acts_to_boxes.trainable_variables, "graph")}
        if not h.graph_only:
            self._check_images()
            with self._wide():
                self.acts_to_objs = None if h.coupled_motion_appearance else mover("acts_to_objs")
                self.appearance = AttributeEmbedding(h.attribute_sizes, h.appearance_dim, name="appearance")
            self._build_video()
            parts = [p for p in (self.acts_to_objs, self.appearance, self.video) if p is not None]
            generator = [v for part in parts for v in part.trainable_variables]
            optimizers["generator"] = self._adam(generator, "generator")
            if self.has_training_networks:
                with self._wide():
                    self.discriminator = ActionDiscriminator(
                        *vocabulary,
                        num_scales=h.num_D,
                        width=h.ndf,
                        num_layers=h.n_layers_D,
                        norm=h.norm_D,
                        name="discriminator",
                        **graph,
                    )
                optimizers["discriminator"] = self._adam(self.discriminator.trainable_variables, "discriminator")
            convolve = None
            if not tf.config.list_physical_devices("GPU"):
                convolve, self.video.run = grouped_conv.convolve, recomputed
            for layer in self._flatten_layers():
                if isinstance(layer, TorchConv2D):
                    layer.warm_up()
                    layer.same_convolution = convolve
        self.finish_build(optimizers)

    def _wide(self):
        """Within it networks compute in at least float32; only the video generator may be narrower.

        Boxes, times and coordinates have no place in bfloat16, and the graphs are cheap.
        """
        return float_policy(self.wide_dtype.name)

    def _adam(self, variables, name):
        return Adam(variables, beta1=self.hparams.beta1, beta2=self.hparams.beta2, form="torch", name=name)

    def _check_images(self):
        if "images" not in self.spec:
            raise UserError("AG2Vid draws frames: expected images in the data, or graph_only=true. Received: none")
        h, (height, width, channels) = self.hparams, self.spec["images"].shape[1:]
        if channels != 3:
            raise UserError(f"AG2Vid: expected frames of 3 channels. Received: {channels}")
        factor = 2 ** UPSAMPLINGS[h.num_upsampling_layers]
        drawn = tuple(n * factor for n in first_size(width, h.num_upsampling_layers, h.aspect_ratio))
        if drawn != (height, width):
            kind = "square frames" if h.aspect_ratio == 1 else f"frames of aspect_ratio={h.aspect_ratio:g}"
            raise UserError(f"AG2Vid: expected {kind} with sides divisible by {factor}. Received: {height}x{width}")
        halvings = 2**h.n_downsample_F
        if height % halvings or width % halvings:
            raise UserError(
                f"n_downsample_F: expected frames with sides divisible by 2^n_downsample_F = {halvings}."
                f" Received: n_downsample_F={h.n_downsample_F} and {height}x{width}"
            )

    def _build_video(self):
        h = self.hparams
        layout_channels = len(h.attribute_sizes) * h.appearance_dim + h.gconv_dim
        self.video = VideoGenerator(
            layout_channels,
            h.n_frames_G,
            h.condition_channels,
            flow={
                "width": h.nff,
                "num_downsamplings": h.n_downsample_F,
                "num_blocks": h.n_blocks_F,
                "multiplier": h.flow_multiplier,
                "transposed": h.flow_deconv,
            },
            flow_norm=h.norm_F,
            generator={
                "width": h.ngf,
                "upsampling": h.num_upsampling_layers,
                "norm": h.norm_G,
                "aspect_ratio": h.aspect_ratio,
            },
            align_corners=h.align_corners,
            name="video",
        )
        if not h.no_vgg_loss and h.lambda_vgg:
            self.perceptual = PerceptualVGG(h.vgg_weights, h.precision, "set no_vgg_loss", h.vgg_widths)

    def check_spec(self):
        super().check_spec()
        attributes, known = self.spec["objects"].shape[-1], len(self.hparams.attribute_sizes)
        if attributes != known:
            raise UserError(
                f"objects: expected {known} attributes for attribute_sizes={list(self.hparams.attribute_sizes)}."
                f" Received: {attributes}"
            )
        frames, least = self.spec["boxes"].shape[0], 1 if self.hparams.graph_only else self.hparams.frames_per_action
        if frames is not None and frames < least:
            raise UserError(
                f"frames_per_action: expected at most the {frames} frames of the data's clips."
                f" Received: frames_per_action={least}"
            )
        if not self.hparams.image_node and "relations" not in self.spec:
            raise UserError("relations: expected them in the data where image_node is false. Received: none")

    # The forward pass.

    def normalize(self, images):
        """uint8, or float in [0, 1] -> ImageNet-normalised float."""
        images = self.images_to_float(images)
        return (images - tf.constant(MEAN, images.dtype)) / tf.constant(STD, images.dtype)

    def denormalize(self, images):
        """Back to [0, 1], clipped."""
        images = images * tf.constant(STD, images.dtype) + tf.constant(MEAN, images.dtype)
        return tf.clip_by_value(images, 0, 1)

    def move_boxes(self, batch):
        """(vectors, boxes [B, T, O, 4], clocked edges) of `acts_to_boxes`; T is that of the triplets."""
        return self.acts_to_boxes(
            batch["objects"], batch["triplets"], batch["action_graph"], self._float(batch["boxes"][:, 0])
        )

    def object_vectors(self, batch, moved):
        """[B, T, O, G]: what the frames know of the objects' motion; `moved` is `move_boxes`' result, or None."""
        if self.acts_to_objs is None:
            return (moved or self.move_boxes(batch))[0]
        return self.acts_to_objs(
            batch["objects"], batch["triplets"], batch["action_graph"], self._float(batch["boxes"][:, 0])
        )[0]

    def draw_frames(self, images, objects, boxes, vectors, free_running, training):
        """Draws all frames after the first n-1.

        Args:
          images: [B, >= n-1, H, W, 3] normalised; all T frames unless `free_running`.
          objects: [B, O, A]. boxes: [B, T, O, 4]. vectors: [B, T, O, G].
          free_running: feed generated frames back.
          training: of the networks.

        Returns:
          frames [B, T-n+1, H, W, 3], flows [B, T-n+1, H, W, 2].
        """
        n = self.hparams.n_frames_G
        height, width = images.shape[2:4]
        appearance = self.appearance(objects)
        present = tf.not_equal(objects[..., 0], 0)
        layouts = [
            make_layout(tf.concat([appearance, vectors[:, t]], -1), boxes[:, t], present, height, width)
            for t in range(boxes.shape[1])
        ]
        times = range(n - 1, boxes.shape[1])
        if not free_running:  # all previous frames are known: one call draws all frames
            seen = [concat_layouts([layouts[t - n + 1 + i] for t in times]) for i in range(n)]
            previous = [tf.concat([images[:, t - n + 1 + i] for t in times], 0) for i in range(n - 1)]
            frames, flows, _ = self.video(
                layouts=seen, previous=tf.concat(previous, -1), training=training, calls=len(times)
            )
            parts = [tf.reshape(x, (len(times), -1, *x.shape[1:])) for x in (frames, flows)]
            return tuple(tf.transpose(x, (1, 0, 2, 3, 4)) for x in parts)

        def draw(layouts, previous):
            return self.video(layouts=layouts, previous=tf.concat(previous, -1), training=training)

        if not training:  # in training the networks change variables
            draw = shared_function(draw)
        known, frames, flows = [images[:, t] for t in range(n - 1)], [], []
        for t in times:
            frame, flow, _ = draw(layouts[t - n + 1 : t + 1], (known + frames)[-(n - 1) :])
            frames.append(frame)
            flows.append(flow)
        return tf.stack(frames, 1), tf.stack(flows, 1)

    def _float(self, x):
        return tf.cast(x, self.wide_dtype)

    # Training.

    def prepare_training(self):
        if self.perceptual is not None:
            self.perceptual.network  # noqa: B018  made, or refused

    @tf.autograph.experimental.do_not_convert
    def train_step(self, batch, draws=None):
        """Generator, discriminator, boxes: three updates, the first two on the same generated frames."""
        logs = {}
        if not self.hparams.graph_only:
            clip = self.frames_clip(batch, draws or self.train_draws())
            losses, gradients, fake = self.generator_gradients(clip)
            applied = self.apply_gradients("generator", gradients, self.hparams.lr, loss=losses["total_loss"])
            logs |= losses | applied
            # After the generator's gradients, for less memory: otherwise both passes run side by side.
            with tf.control_dependencies([applied["generator_grad_norm"]]):
                losses, gradients = self.discriminator_gradients(clip, tf.identity(fake))
                logs |= losses | self.apply_gradients(
                    "discriminator", gradients, self.hparams.lr, loss=losses["total_img_loss"]
                )
        with tf.control_dependencies([v for k, v in logs.items() if k.endswith("_grad_norm")]):
            loss, gradients = self.graph_gradients(graph_inputs(batch, batch["boxes"].shape[1], self.hparams))
            logs |= self.apply_gradients("graph", gradients, self.hparams.lr, loss=loss)
        self.finish_step()
        return {**logs, "bbox_pred": loss}

    def frames_clip(self, batch, draws):
        """A random window of `frames_per_action` frames of each clip, as the networks take it."""
        length = self.hparams.frames_per_action
        last = batch["boxes"].shape[1] - length
        batch = {k: batch[k] for k in (*GRAPH_KEYS, "images") if k in batch}
        if last > 0:
            batch = window(batch, draws.integers("window", [tf.shape(batch["boxes"])[0]], last + 1), length)
        clip = graph_inputs(batch, length, self.hparams)
        return {**clip, "boxes": self._float(clip["boxes"]), "images": self.normalize(batch["images"])}

    def generator_gradients(self, batch):
        """({name: weighted loss}, gradients of the generator's variables, generated frames)."""
        h, start = self.hparams, self.hparams.n_frames_G - 1
        images, real = batch["images"], batch["images"][:, self.hparams.n_frames_G - 1 :]
        layout = self._discriminator_layout(batch)
        with tf.GradientTape() as tape:
            vectors = self.object_vectors(batch, None)
            fake, flows = self.draw_frames(images, batch["objects"], batch["boxes"], vectors, h.bp_prev, True)
            judged = self.discriminator.score(fake, layout, training=True)
            scores = [features[-1] for features in judged]
            losses = {"GAN_Img": losses_lib.multiscale_adversarial(scores, True, h.gan_mode, for_generator=True)}
            if not h.no_ganFeat_loss:
                with tape.stop_recording():
                    judged_real = self.discriminator.score(real, layout, training=True)
                losses["GAN_Feat"] = losses_lib.feature_matching(judged, judged_real)
            before, flat = images[:, start - 1 : -1], (-1, *images.shape[2:])
            warped = resample(tf.reshape(before, flat), tf.reshape(flows, (-1, *flows.shape[2:])), h.align_corners)
            losses["loss_F_Warp"] = mean_absolute(warped - tf.reshape(real, flat))
            if self.perceptual is not None:
                with xla.off():  # Winograd's method would save a tenth of the step and take 0.4 GB
                    losses["VGG"], _ = loss_by_slices(self._perceptual_loss, fake, real)
            weights = {
                "GAN_Img": h.discriminator_img_loss_weight,
                "GAN_Feat": h.lambda_feat,
                "loss_F_Warp": h.lambda_F_warp,
                "VGG": h.lambda_vgg,
            }
            total = weighted_sum(losses, weights)
        gradients = tape.gradient(total, self._targets("generator"))
        losses = {name: loss * weights[name] for name, loss in losses.items()}
        return {**losses, "total_loss": total}, gradients, tf.stop_gradient(fake)

    def _perceptual_loss(self, fake, real):
        return losses_lib.perceptual(*features_of(self.perceptual.network, fake, real)), []

    def discriminator_gradients(self, batch, fake):
        """({name: loss}, gradients of the discriminator's variables) on frames already generated."""
        h, real = self.hparams, batch["images"][:, self.hparams.n_frames_G - 1 :]
        with tf.GradientTape() as tape:
            layout = self._discriminator_layout(batch)
            judged = self.discriminator.score(tf.concat([fake, real], 0), layout, training=True, calls=2)
            fake_scores, real_scores = zip(*(tf.split(features[-1], 2) for features in judged))
            losses = {
                "D_img_fake": losses_lib.multiscale_adversarial(fake_scores, False, h.gan_mode),
                "D_img_real": losses_lib.multiscale_adversarial(real_scores, True, h.gan_mode),
            }
            total = losses["D_img_fake"] + losses["D_img_real"]
        gradients = tape.gradient(total, self._targets("discriminator"))
        return {**losses, "total_img_loss": total}, gradients

    def graph_gradients(self, clip):
        """(weighted box loss, gradients of the variables of `acts_to_boxes`)."""
        h = self.hparams
        with tf.GradientTape() as tape:
            _, boxes, _ = self.move_boxes(clip)
            loss = losses_lib.box_loss(boxes, self._float(clip["boxes"]), clip["objects"], h.masked_box_loss)
            loss = loss * h.bbox_pred_loss_weight
        return loss, tape.gradient(loss, self._targets("graph"))

    def _discriminator_layout(self, batch):
        start = self.hparams.n_frames_G - 1
        clocked = self.acts_to_boxes.clock(batch["triplets"], batch["action_graph"])
        clocked = [v[:, start:] for v in clocked]
        height, width = batch["images"].shape[2:4]
        return self.discriminator.layout(batch["objects"], batch["boxes"][:, start:], clocked, height, width)

    def _targets(self, name):
        return self.optimizers_by_name[name].targets

    # Validation and generation.

    @tf.autograph.experimental.do_not_convert
    def test_step(self, batch):
        """IoU of the boxes of each clip, that of boxes that stay where they are beside it; PSNR of the frames."""
        clip = graph_inputs(batch, batch["boxes"].shape[1], self.hparams)
        moved = self.move_boxes(clip)
        slots = batch["objects"].shape[1]
        truth = tf.cast(batch["boxes"][:, 1:], tf.float32)
        predicted = to_corners(tf.cast(moved[1][:, 1:, :slots], tf.float32))
        still = tf.repeat(tf.cast(batch["boxes"][:, :1], tf.float32), truth.shape[1], axis=1)
        logs = overlap(predicted, truth) | overlap(still, truth, "_static")
        logs["bbox_pred"] = self.hparams.bbox_pred_loss_weight * losses_lib.box_loss(
            moved[1], self._float(clip["boxes"]), clip["objects"], self.hparams.masked_box_loss
        )
        if not self.hparams.graph_only:
            images, start = self.images_to_float(batch["images"]), self.hparams.n_frames_G - 1
            vectors = self.object_vectors(clip, moved)
            frames, _ = self.draw_frames(self.normalize(images), clip["objects"], moved[1], vectors, True, False)
            psnr = frame_metrics.psnr(self.denormalize(frames), images[:, start:], floor=1e-10)
            logs["psnr"] = tf.reduce_mean(psnr, axis=1)
        return logs

    def generate(self, batch, seed, num_samples=1, horizon=None):
        """Moves the boxes of the last given frame and draws the frames that go with them.

        Args:
          batch: keys of the data; of `images` and `boxes` the context frames are used. The
            actions' progress is linear in time and may be longer or shorter than the
            horizon; relations that end go on as the last ones, as in the original they
            are those of the true clip where it has some.
          seed: without effect. num_samples: copies.
          horizon: frames after the context; None: all of the batch, or of sequence_length.

        Returns:
          images [S, B, horizon, H, W, 3] in [0, 1] (with `graph_only` pictures of the
          boxes), boxes [S, B, horizon, O, 4] corners.
        """
        context = self.hparams.context_frames or self.hparams.n_frames_G - 1
        if horizon is None:
            known = batch["action_progress"].shape[1]
            horizon = known - context if known > context else (self.hparams.sequence_length or 0) - context
        if horizon < 1:
            raise UserError(f"horizon: expected at least 1 frame after the {context} given. Received: {horizon}")
        start = context - (self.hparams.n_frames_G - 1)
        inputs = {k: batch[k] for k in (*GRAPH_KEYS, "images") if k in batch and k in self.spec}
        inputs = {k: v[:, start:] if k in TIMED_KEYS else v for k, v in inputs.items()}
        inputs["boxes"] = inputs["boxes"][:, :1]
        if "images" in inputs:
            inputs["images"] = inputs["images"][:, : self.hparams.n_frames_G - 1]
        key = (horizon, *sorted(inputs))
        if key not in self._generators:
            self._generators[key] = tf.function(
                lambda x: self.rendered(x, horizon), reduce_retracing=True, autograph=False
            )
        outputs = self._generators[key]({k: tf.convert_to_tensor(v) for k, v in inputs.items()})
        return {k: tf.repeat(v[None], num_samples, axis=0) for k, v in outputs.items()}

    def rendered(self, inputs, horizon):
        """{"images", "boxes"} [B, horizon, ...] from the first n-1 frames and the boxes of the first."""
        given = self.hparams.n_frames_G - 1
        clip = graph_inputs(inputs, given + horizon, self.hparams)
        moved = self.move_boxes(clip)
        slots = inputs["objects"].shape[1]
        boxes = to_corners(tf.cast(moved[1][:, given:, :slots], tf.float32))
        boxes = tf.where(inputs["objects"][:, None, :, :1] > 0, boxes, 0.0)
        if self.hparams.graph_only:
            return {"images": self._box_views(boxes), "boxes": boxes}
        vectors = self.object_vectors(clip, moved)
        frames, _ = self.draw_frames(self.normalize(inputs["images"]), clip["objects"], moved[1], vectors, True, False)
        return {"images": tf.cast(self.denormalize(frames), tf.float32), "boxes": boxes}

    def truth_frames(self, batch, horizon):
        if not self.hparams.graph_only:
            return super().truth_frames(batch, horizon)
        start = self.hparams.context_frames
        return self._box_views(tf.cast(batch["boxes"][:, start : start + horizon], tf.float32))

    def _box_views(self, boxes):
        height, width = self.spec["images"].shape[1:3] if "images" in self.spec else (64, 64)
        return box_views(boxes, height, width)

    def signatures(self):
        """serving_default: first frames, first boxes and a graph -> frames and boxes.

        Inputs: images float32 [B, n-1, H, W, 3] in [0, 1] (not with graph_only), boxes [B, 1, O, 4],
        objects [B, O, A], timed_actions [B, N, 3], action_progress [B, T, N] where T is
        the length of a test clip, action_destinations [B, N, 2], relations [B, T, K, 3] where the data
        has them, seed int64 scalar (without effect). Outputs: images, boxes [B, T-n+1, ...].
        """
        h, given = self.hparams, self.hparams.n_frames_G - 1
        length = h.long_sequence_length or h.sequence_length
        lengths = {"images": given, "boxes": 1, "relations": length, "action_progress": length}
        keys = [k for k in (*GRAPH_KEYS, "images") if k in self.spec and not (k == "images" and h.graph_only)]
        specs = []
        for key in keys:
            shape = list(self.spec[key].shape)
            if key in lengths:
                shape[0] = lengths[key]
            dtype = tf.float32 if key == "images" else self.spec[key].dtype
            specs.append(tf.TensorSpec([None, *shape], dtype, name=key))

        @tf.function(input_signature=[*specs, tf.TensorSpec([], tf.int64, name="seed")], autograph=False)
        def serve(*values):
            return self.rendered(dict(zip(keys, values)), length - given)

        return {"serving_default": serve}


def overlap(predicted, truth, suffix=""):
    """{"iou", "iou_above_0.3", "iou_above_0.5"}: means over the boxes of each clip, [B, T, O, 4] -> [B]."""
    values = box_metrics.iou(predicted, truth)
    present = tf.cast(tf.reduce_all(truth[..., 2:] > truth[..., :2], axis=-1), values.dtype)

    def mean(x):
        count = tf.reduce_sum(present, axis=(1, 2))
        return tf.reduce_sum(x * present, axis=(1, 2)) / tf.maximum(count, 1)

    found = {"iou": values}
    found |= {f"iou_above_{limit}": tf.cast(values > limit, values.dtype) for limit in (0.3, 0.5)}
    return {f"{name}{suffix}": mean(value) for name, value in found.items()}


def box_views(boxes, height, width):
    """Pictures of boxes, each slot in a colour of its own: [..., O, 4] corners -> [..., height, width, 3]."""
    slots = boxes.shape[-2]
    colours = tf.constant([colorsys.hsv_to_rgb(i / slots, 0.8, 0.9) for i in range(slots)], tf.float32)
    rows = (tf.range(height, dtype=tf.float32) + 0.5) / height
    columns = (tf.range(width, dtype=tf.float32) + 0.5) / width
    image = tf.zeros(tf.concat([tf.shape(boxes)[:-2], [height, width, 3]], 0)) + 0.1
    for i in range(slots):
        x0, y0, x1, y1 = (boxes[..., i, j, None] for j in range(4))
        inside_y = tf.logical_and(rows >= y0, rows < y1)[..., :, None]
        inside_x = tf.logical_and(columns >= x0, columns < x1)[..., None, :]
        inside = tf.cast(tf.logical_and(inside_y, inside_x), tf.float32)[..., None] * 0.7
        image = image * (1 - inside) + colours[i] * inside
    return image
