"""AG2Vid: video from an action graph (Bar et al., "Compositional Video Synthesis with Action Graphs", ICML 2021)."""

import tensorflow as tf

from tfvid.errors import UserError
from tfvid.layers.torch_conv import TorchConv2D
from tfvid.layers.vgg import VGGFeatures
from tfvid.models.ag2vid import losses as losses_lib
from tfvid.models.ag2vid.hparams import AG2VidHParams
from tfvid.models.ag2vid.layout import make_layout
from tfvid.models.ag2vid.networks_discriminator import ActionDiscriminator
from tfvid.models.ag2vid.networks_graph import ActionGraphModel, AttributeEmbedding
from tfvid.models.ag2vid.networks_video import UPSAMPLINGS, VideoGenerator, resample
from tfvid.models.optimizers import Adam
from tfvid.models.video_model import VideoModel, weighted_sum

# ImageNet's, by which all frames are normalised.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class AG2Vid(VideoModel):
    """Moves boxes along an action graph and draws the frames that go with them.

    Batch: `images` [B, T, H, W, 3], `objects` [B, O, A] attribute indices (0: image node
    or padding), `boxes` [B, T, O, 4] (x0, y0, w, h; padding -1, absent 0), `triplets`
    [B, T, K, 3], `action_graph` [B, N, 7] (subject, action, object, f1, f2, x_end, y_end);
    and the same of longer clips, without images, that train the boxes:
    `graph_objects`, `graph_boxes`, `graph_triplets`, `graph_action_graph`.

    The model is deterministic: samples of one graph are equal.
    """

    HPARAMS = AG2VidHParams
    REQUIRED_KEYS = ("objects", "boxes", "triplets", "action_graph")
    OPTIONAL_KEYS = ("images", "graph_objects", "graph_boxes", "graph_triplets", "graph_action_graph")

    def __init__(self, hparams, spec, seed=0, name="ag2vid"):
        super().__init__(hparams, spec, seed=seed, name=name)
        h = hparams
        graph = {
            "embedding_dim": h.embedding_dim,
            "graph_dim": h.gconv_dim,
            "hidden_dim": h.gconv_hidden_dim,
            "pooling": h.gconv_pooling,
        }
        vocabulary = (h.attribute_sizes, h.num_predicates, h.num_actions)

        def mover(name):
            return ActionGraphModel(
                *vocabulary, num_layers=h.gconv_num_layers, only_actions=h.only_temporal, name=name, **graph
            )

        self.acts_to_boxes = mover("acts_to_boxes")
        optimizers = {"graph": self._adam(self.acts_to_boxes.trainable_variables, "graph")}
        if not h.graph_only:
            self._check_images()
            self.acts_to_objs = None if h.coupled_motion_appearance else mover("acts_to_objs")
            self._build_video()
            self.discriminator = ActionDiscriminator(
                *vocabulary,
                num_scales=h.num_D,
                width=h.ndf,
                num_layers=h.n_layers_D,
                norm=h.norm_D,
                name="discriminator",
                **graph,
            )
            parts = [p for p in (self.acts_to_objs, self.appearance, self.video) if p is not None]
            generator = [v for part in parts for v in part.trainable_variables]
            optimizers["generator"] = self._adam(generator, "generator")
            optimizers["discriminator"] = self._adam(self.discriminator.trainable_variables, "discriminator")
            for layer in self._flatten_layers():
                if isinstance(layer, TorchConv2D):
                    layer.warm_up()
        self.finish_build(optimizers)

    def _adam(self, variables, name):
        return Adam(variables, beta1=self.hparams.beta1, beta2=self.hparams.beta2, form="torch", name=name)

    def _check_images(self):
        if "images" not in self.spec:
            raise UserError("AG2Vid draws frames: expected images in the data, or graph_only=true. Received: none")
        height, width = self.spec["images"].shape[1:3]
        factor = 2 ** UPSAMPLINGS[self.hparams.num_upsampling_layers]
        if height != width or height % factor:
            raise UserError(
                f"AG2Vid: expected square frames with a side divisible by {factor}. Received: {height}x{width}"
            )

    def _build_video(self):
        h = self.hparams
        self.appearance = AttributeEmbedding(h.attribute_sizes, h.appearance_dim, name="appearance")
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
        self.vgg = None
        if not h.no_vgg_loss and h.lambda_vgg:
            self.vgg = VGGFeatures(19, widths=h.vgg_widths, name="vgg")
            self.vgg.build((None, None, None, 3))
            self.vgg.trainable = False

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
        known = [images[:, t] for t in range(n - 1)]
        frames, flows = [], []
        for t in range(n - 1, boxes.shape[1]):
            previous = (known + frames)[-(n - 1) :] if free_running else [images[:, i] for i in range(t - n + 1, t)]
            frame, flow, _ = self.video(
                layouts=layouts[t - n + 1 : t + 1], previous=tf.concat(previous, -1), training=training
            )
            frames.append(frame)
            flows.append(flow)
        return tf.stack(frames, 1), tf.stack(flows, 1)

    def _float(self, x):
        return tf.cast(x, self.acts_to_boxes.compute_dtype if self.hparams.precision == "float64" else tf.float32)

    # Training.

    def train_step(self, batch):
        """Generator, discriminator, boxes: three updates, the first two on the same generated frames."""
        logs = {}
        if not self.hparams.graph_only:
            batch = {**batch, "images": self.normalize(batch["images"]), "boxes": self._float(batch["boxes"])}
            generator_losses, gradients, fake = self.generator_gradients(batch)
            discriminator_losses, discriminator_gradients = self.discriminator_gradients(batch, fake)
            logs |= self.apply_gradients("generator", gradients, self.hparams.lr)
            logs |= self.apply_gradients("discriminator", discriminator_gradients, self.hparams.lr)
            logs |= generator_losses | discriminator_losses
        loss, gradients = self.graph_gradients(self.graph_clip(batch))
        logs |= self.apply_gradients("graph", gradients, self.hparams.lr)
        self.finish_step()
        return {**logs, "bbox_pred": loss}

    def generator_gradients(self, batch):
        """({name: weighted loss}, gradients of the generator's variables, generated frames)."""
        h, start = self.hparams, self.hparams.n_frames_G - 1
        images, real = batch["images"], batch["images"][:, self.hparams.n_frames_G - 1 :]
        layout = self._discriminator_layout(batch)
        with tf.GradientTape() as tape:
            vectors = self.object_vectors(batch, None)
            fake, flows = self.draw_frames(images, batch["objects"], batch["boxes"], vectors, h.bp_prev, True)
            judged = self.discriminator.score(fake, layout, training=True)
            losses = {"GAN_Img": losses_lib.multiscale_adversarial(judged, True, h.gan_mode, for_generator=True)}
            if not h.no_ganFeat_loss:
                with tape.stop_recording():
                    judged_real = self.discriminator.score(real, layout, training=True)
                losses["GAN_Feat"] = losses_lib.feature_matching(judged, judged_real)
            before, flat = images[:, start - 1 : -1], (-1, *images.shape[2:])
            warped = resample(tf.reshape(before, flat), tf.reshape(flows, (-1, *flows.shape[2:])), h.align_corners)
            losses["loss_F_Warp"] = tf.reduce_mean(tf.abs(warped - tf.reshape(real, flat)))
            if self.vgg is not None:
                with tape.stop_recording():
                    target = self.vgg(tf.reshape(real, flat))
                losses["VGG"] = losses_lib.perceptual(self.vgg(tf.reshape(fake, flat)), target)
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

    def discriminator_gradients(self, batch, fake):
        """({name: loss}, gradients of the discriminator's variables) on frames already generated."""
        h, real = self.hparams, batch["images"][:, self.hparams.n_frames_G - 1 :]
        with tf.GradientTape() as tape:
            layout = self._discriminator_layout(batch)
            judged = self.discriminator.score(fake, layout, training=True)
            losses = {"D_img_fake": losses_lib.multiscale_adversarial(judged, False, h.gan_mode)}
            judged = self.discriminator.score(real, layout, training=True)
            losses["D_img_real"] = losses_lib.multiscale_adversarial(judged, True, h.gan_mode)
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

    def graph_clip(self, batch):
        """The clip that trains the boxes: the longer one where the data has it."""
        if "graph_boxes" not in batch:
            return batch
        return {k.removeprefix("graph_"): v for k, v in batch.items() if k.startswith("graph_")}

    def _discriminator_layout(self, batch):
        start = self.hparams.n_frames_G - 1
        clocked = self.acts_to_boxes.clock(batch["triplets"], batch["action_graph"])
        clocked = [v[:, start:] for v in clocked]
        height, width = batch["images"].shape[2:4]
        return self.discriminator.layout(batch["objects"], batch["boxes"][:, start:], clocked, height, width)

    def _targets(self, name):
        return self.optimizers_by_name[name].targets
