"""Recorded parts of AG2Vid in isolation: each network in evaluation and training, and the operations."""

import numpy as np
import tensorflow as tf

from tfvid.metrics.boxes import iou
from tfvid.models.ag2vid import convert, losses
from tfvid.models.ag2vid.graph_inputs import to_corners
from tfvid.models.ag2vid.layout import halve_layout, make_layout, rasterize
from tfvid.models.ag2vid.networks_discriminator import ActionDiscriminator, halve
from tfvid.models.ag2vid.networks_graph import ActionGraphModel, AttributeEmbedding, GraphConvolution
from tfvid.models.ag2vid.networks_video import (
    FlowNetwork,
    Spade,
    SpadeBlock,
    SpadeGenerator,
    nearest_resize,
    parse_spade,
    resample,
)

# Seen: 4e-6 of the largest value (specification section 14).
RTOL = 1e-4


def assert_close(actual, recorded, name, rtol=RTOL):
    recorded = np.asarray(recorded)
    scale = max(np.abs(recorded).max(), 1e-8)
    np.testing.assert_allclose(np.asarray(actual) / scale, recorded / scale, 0, rtol, err_msg=name)


def last(x):
    """[N, C, H, W] -> [N, H, W, C]."""
    return np.moveaxis(np.asarray(x), 1, -1)


def first(x):
    """[N, H, W, C] -> [N, C, H, W]."""
    return np.moveaxis(np.asarray(x), -1, 1)


def network(case, name, entries, call, rtol=RTOL):
    """Compares outputs in both modes, buffers after training, and gradient norms.

    Args:
      name: prefix of the network's arrays.
      entries: {original name: (variable, transform)}.
      call: function (inputs as recorded, training) -> list of outputs as recorded.
    """
    arrays = case.under(f"{name}/")
    inputs = {k[3:]: tf.constant(v) for k, v in arrays.items() if k.startswith("in/")}
    watched = {k[8:]: inputs[k[8:]] for k in arrays if k.startswith("grad_in/")}
    for mode in ("eval", "train"):
        assign(entries, {k[6:]: v for k, v in arrays.items() if k.startswith("param/")})
        with tf.GradientTape() as tape:
            tape.watch(watched)
            outputs = call(inputs, mode == "train")
            objective = weighted(outputs)
        for i, output in enumerate(outputs):
            assert_close(output, arrays[f"out_{mode}/{i}"], f"{name} {mode} {i}", rtol)
    for key in [k for k in arrays if k.startswith("after_train/")]:
        variable, transform = entries[key[len("after_train/") :]]
        recorded = transform(arrays[key]) if transform else arrays[key]
        assert_close(variable.numpy(), recorded, key, rtol)
    gradients, by_input = tape.gradient(objective, [[v.value for v, _ in entries.values()], watched])
    compare_norms(arrays, entries, gradients)
    for key, gradient in by_input.items():
        # None: no path leads there, and the recording holds zeros.
        gradient = tf.zeros_like(inputs[key]) if gradient is None else gradient
        assert_close(gradient, arrays[f"grad_in/{key}"], f"{name} gradient of {key}", 10 * rtol)


def assign(entries, parameters):
    left = set(parameters)
    for name, (variable, transform) in entries.items():
        if name in parameters:
            variable.assign(transform(parameters[name]) if transform else parameters[name])
            left.discard(name)
        else:
            assert name.endswith("num_batches_tracked"), f"{name} was not recorded"
    assert not left, f"recorded but unknown: {sorted(left)[:5]}"


def weighted(outputs):
    """The recordings' objective: every float output times fixed random weights."""
    state, total = np.random.RandomState(5), 0.0
    for output in outputs:
        if output.dtype.is_floating:
            weights = state.randint(-8, 9, output.shape) / 8
            total += tf.reduce_sum(output * weights.astype(np.float32))
    return total


def compare_norms(arrays, entries, gradients):
    recorded = {k[len("gradnorm/") :]: float(v) for k, v in arrays.items() if k.startswith("gradnorm/")}
    largest = max(recorded.values())
    for (name, _), gradient in zip(entries.items(), gradients):
        # Below: biases in front of a batch norm, zero in exact arithmetic.
        if recorded.get(name, 0) > 1e-4 * largest:
            norm = np.linalg.norm(tf.convert_to_tensor(gradient))
            np.testing.assert_allclose(norm, recorded[name], 1e-3, err_msg=name)


def vocabulary(meta):
    rows = [max(v.values()) + 1 for v in meta["vocab"]["attributes"].values()]
    return rows, len(meta["vocab"]["pred_name_to_idx"]), len(meta["vocab"]["action_name_to_idx"])


def check_graph(case):
    config = case.meta["config"]
    for name in sorted({k.split("/")[0] for k in case.arrays}):
        if name.startswith("attr_emb"):
            check_attributes(case, name)
        elif name.startswith("gconv"):
            check_graph_convolution(case, name)
        elif name.startswith("layout"):
            model = ActionGraphModel(
                *vocabulary(case.meta),
                embedding_dim=config["embedding_dim"],
                graph_dim=config["gconv_dim"],
                hidden_dim=config["gconv_hidden_dim"],
                num_layers=config["gconv_num_layers"],
                only_actions="only_temporal" in name,
            )

            def call(x, training, model=model):
                vectors, boxes, clocked = model(x["objs"], x["triplets"], x["actions"], x["boxes_gt"][:, 0])
                return [vectors, boxes, *clocked]

            network(case, name, convert.graph_map("", model), call)
        else:
            # The mask network is never called by the method and has no place here.
            assert name == "mask_net", name


def check_attributes(case, name):
    parameters = case.under(f"{name}/param/")
    tables = [v.shape for k, v in sorted(parameters.items()) if k.startswith("att_emb_")]
    model = AttributeEmbedding([t[0] for t in tables], tables[0][1], mix="attribute_fc_gen.weight" in parameters)
    network(case, name, convert.attribute_map("", model), lambda x, training: [model(x["x"])])


def check_graph_convolution(case, name):
    inputs = case.under(f"{name}/in/")
    hidden = case.arrays[f"{name}/param/net1.0.bias"].size
    out = case.arrays[f"{name}/param/net2.2.bias"].size
    edge_out = case.arrays[f"{name}/param/net1.2.bias"].size - 2 * hidden
    sizes = inputs["obj_vecs"].shape[-1], inputs["pred_vecs"].shape[-1]
    # The original averages whatever pooling it is asked for, so "avg" is what both recordings hold.
    model = GraphConvolution(*sizes, hidden, out, edge_out)
    # With return_new_p_vecs=False the original hands the edge vectors through.
    returns_edges = not np.array_equal(case.arrays[f"{name}/out_eval/1"], inputs["pred_vecs"])

    def call(x, training):
        objects, edges = model(x["obj_vecs"], x["pred_vecs"], x["edges"], x["indicators"])
        return [objects, edges if returns_edges else x["pred_vecs"]]

    network(case, name, convert.graph_convolution_map("", model), call)


def check_flow(case):
    for name, config in case.meta["config"].items():
        model = FlowNetwork(
            case.arrays[f"{name}/in/label"].shape[1],
            width=config["nff"],
            num_downsamplings=config["n_downsample_F"],
            num_blocks=config["n_blocks_F"],
            multiplier=config["flow_multiplier"],
            norm=config["norm_F"],
            transposed=config["flow_deconv"],
        )

        def call(x, training, model=model):
            flow, weight = model.heads(tf.transpose(x["label"], (0, 2, 3, 1)), training)
            return [tf.transpose(y, (0, 3, 1, 2)) for y in (weight, flow)]

        network(case, name, convert.flow_map("", model), call, 5e-4)


def check_spade(case):
    for name in sorted({k.split("/")[0] for k in case.arrays}):
        inputs = [v for k, v in sorted(case.under(f"{name}/in/").items())]
        keys = sorted(case.under(f"{name}/in/"))
        channels = {k: v.shape[1] for k, v in zip(keys, inputs)}
        condition = next(k for k in keys if k in ("seg", "segmap", "layout", "cond", "label"))
        image = next(k for k in keys if k != condition)
        kind = spade_kind(case, name)
        if name.startswith("block"):
            middle = case.arrays[f"{name}/out_eval/0"].shape[1]
            model = SpadeBlock(channels[image], middle, channels[condition], kind)
            entries = convert.spade_block_map("", model)
        else:
            _, norm, size = parse_spade(kind)
            model = Spade(channels[image], channels[condition], norm, size)
            entries = convert.spade_map("", model)

        def call(x, training, model=model, image=image, condition=condition):
            value, seen = (tf.transpose(x[k], (0, 2, 3, 1)) for k in (image, condition))
            if isinstance(model, Spade):
                seen = nearest_resize(seen, *value.shape[1:3])
                seen = tf.nn.relu(model.shared(seen))
            return [tf.transpose(model(value, seen, training=training), (0, 3, 1, 2))]

        network(case, name, entries, call)


def spade_kind(case, name):
    """The norm that a recorded SPADE was made with, from its name, buffers and kernels."""
    parameters = case.under(f"{name}/param/")
    shared = next(v for k, v in parameters.items() if k.endswith("mlp_shared.0.weight"))
    batch = any("running_mean" in k for k in parameters)
    spectral = any(k.endswith("weight_orig") for k in parameters)
    size = shared.shape[-1]
    return f"{'spectral' if spectral else ''}spade{'syncbatch' if batch else 'instance'}{size}x{size}"


def check_generator(case):
    for name in sorted({k.split("/")[0] for k in case.arrays}):
        config = case.meta["config"].get(name, case.meta["config"])
        model = SpadeGenerator(
            case.arrays[f"{name}/in/layout"].shape[1],
            width=config["ngf"],
            upsampling=config["num_upsampling_layers"],
            norm=config.get("norm_G", "spectralspadesyncbatch3x3"),
            aspect_ratio=config.get("aspect_ratio", 1.0),
        )

        def call(x, training, model=model):
            return [tf.transpose(model(tf.transpose(x["layout"], (0, 2, 3, 1)), training=training), (0, 3, 1, 2))]

        # Seen: 3e-5 for the whole generator.
        network(case, name, convert.generator_map("", model), call, 1e-3)


def check_discriminator(case):
    """`action` is the one that is trained; the others have no effect in the original and no place here."""
    config = case.meta["config"]
    model = ActionDiscriminator(
        *vocabulary(case.meta),
        embedding_dim=config["embedding_dim"],
        graph_dim=config["gconv_dim"],
        hidden_dim=config["gconv_hidden_dim"],
        num_scales=config["num_D"],
        width=config["ndf"],
        num_layers=config["n_layers_D"],
        norm=config["norm_D"],
    )

    def call(x, training):
        clocked = (x["temporal_triplets"], x["relative_timesteps"], x["locs"])
        frames = tf.transpose(x["img"], (0, 1, 3, 4, 2))
        outputs = model(frames, x["objs"], x["boxes"], clocked, training=training)
        return [tf.transpose(f, (0, 3, 1, 2)) for scale in outputs for f in scale]

    network(case, "action", convert.discriminator_map("", model), call)


def check_vgg(case):
    """Of the recorded parts only the VGG stand-in has a use in the method."""
    from tfvid.layers.vgg import VGGFeatures

    parameters = {"features." + k.split(".", 1)[1]: v for k, v in case.under("vgg/param/").items()}
    widths = [case.arrays[f"vgg/out_eval/{i}"].shape[1] for i in range(5)]
    model = VGGFeatures(19, widths=widths)
    model.build((None, None, None, 3))
    model.load_torch(parameters)
    for i, features in enumerate(model(tf.constant(last(case.arrays["vgg/in/x"])))):
        assert_close(first(features), case.arrays[f"vgg/out_eval/{i}"], f"level {i}")


def check_operations(case):
    """The operations that the method uses; crops, masks and graph utilities belong to parts that nothing calls."""
    a = case.arrays
    check_resample(a)
    vectors, boxes = tf.constant(a["layout/vecs"])[None], tf.constant(a["layout/boxes"])[None]
    everything = tf.ones(boxes.shape[:2], tf.bool)
    for key in ("layout/out", "layout/out_rect"):
        layout = make_layout(vectors, boxes, everything, *a[key].shape[-2:])
        assert_close(first(rasterize(layout)), a[key], key)
    assert_close(rasterize(halve_layout(layout)), halve(rasterize(layout)), "pooled layout")
    assert_close(first(halve(tf.constant(last(a["pool/x"])))), a["pool/avg_pool_d"], "pool")
    # IoU does not change with scale and place: boxes are moved inside the image, to which ours are clamped.
    inside = [to_corners(np.concatenate([a[k][..., :2] + 1, a[k][..., 2:]], -1) / 4) for k in ("iou/pred", "iou/gt")]
    assert_close(iou(*inside), a["iou/iou"], "iou")
    for key in [k for k in a if k.startswith("nearest/to")]:
        resized = nearest_resize(tf.constant(last(a["nearest/x"])), *a[key].shape[-2:])
        np.testing.assert_array_equal(first(resized), a[key])
    scores = [a[k] for k in sorted(a) if k.startswith("ganloss/scale")]
    for key in [k for k in a if k.startswith("ganloss/") and k[len("ganloss/")] != "s"]:
        mode, side, judged = key[len("ganloss/") :].split("_")
        value = losses.multiscale_adversarial(scores, side == "real", mode, for_generator=judged == "g")
        assert_close(value, np.mean(a[key]), key)


def check_resample(a):
    image, flow = (tf.constant(last(a[f"resample/{k}"])) for k in ("image", "flow"))
    with tf.GradientTape() as tape:
        tape.watch([image, flow])
        warped = resample(image, flow)
        objective = tf.reduce_sum(warped * last(a["resample/w"]))
    assert_close(first(warped), a["resample/out"], "resample", 1e-5)
    by_image, by_flow = tape.gradient(objective, [image, flow])
    assert_close(first(by_image), a["resample/grad_image"], "gradient of the image", 1e-5)
    # At a whole source coordinate the side of the derivative is a matter of rounding.
    grid = a["resample/grid"][0] + a["resample/flow"] / ((np.array(image.shape[2:0:-1]) - 1) / 2)[:, None, None]
    source = ((grid + 1) * np.array(image.shape[2:0:-1])[:, None, None] - 1) / 2
    clear = (np.abs(source - np.round(source)) > 1e-5).all(1, keepdims=True)
    assert clear.mean() > 0.5
    assert_close(first(by_flow) * clear, a["resample/grad_flow"] * clear, "gradient of the flow", 1e-5)
    still = resample(image, tf.zeros_like(flow))
    assert_close(first(still), a["resample/zero_flow_out"], "no flow", 1e-5)


RUNNERS = {
    "networks_graph": check_graph,
    "networks_flow": check_flow,
    "networks_spade": check_spade,
    "networks_generator": check_generator,
    "networks_disc": check_discriminator,
    "networks_misc": check_vgg,
    "ops": check_operations,
}
