"""Recorded cases of AG2Vid: what is compared with what, and how closely (specification section 14)."""

import contextlib
import dataclasses

import numpy as np
import tensorflow as tf

from tests.parity import ag2vid_data, ag2vid_metrics, ag2vid_networks
from tfvid import models
from tfvid.models.ag2vid import convert
from tfvid.models.ag2vid.hparams import AG2VidHParams
from tfvid.models.ag2vid.model import AG2Vid

PARAMETERS = ("params_graph", "params_netG", "params_video")


def check(case):
    """Runs one case."""
    kind = case.meta["case"]
    runners = {**RUNNERS, **ag2vid_networks.RUNNERS}
    known = [prefix for prefix in runners if kind.startswith(prefix)]
    if not known:
        raise NotImplementedError(f"no comparison for a case of the kind {kind!r}")
    runners[max(known, key=len)](case)


# Building a model from a recording.


def hparams_of(config, vocabulary, precision="float32", **changes):
    """The recording's flags as our hyper-parameters."""
    names = {f.name for f in dataclasses.fields(AG2VidHParams)} - {"batch_size"}
    booleans = {f.name for f in dataclasses.fields(AG2VidHParams) if f.type in (bool, "bool")}
    values = {k: bool(v) if k in booleans else v for k, v in config.items() if k in names and k != "graph_only"}
    values["lr"] = config["learning_rate"]
    values["gconv_pooling"] = "avg"  # what the original does whatever it is told
    values["coupled_motion_appearance"] = bool(config.get("coupled_motion_apperance", False))
    attributes = vocabulary["attributes"].values()
    return AG2VidHParams.from_dict(
        {
            **values,
            "attribute_sizes": [max(v.values()) + 1 for v in attributes],
            "num_predicates": len(vocabulary["pred_name_to_idx"]),
            "num_actions": len(vocabulary["action_name_to_idx"]),
            "precision": precision,
            **changes,
        }
    )


def batch_of(arrays, prefix, dtype="float32"):
    """A recorded batch under our keys, images already normalised."""
    batch = {
        "objects": arrays[f"{prefix}/objs"].astype("int32"),
        "boxes": arrays[f"{prefix}/boxes"].astype(dtype),
        "triplets": arrays[f"{prefix}/triplets"].astype("int32"),
        "action_graph": arrays[f"{prefix}/actions"].astype(dtype),
        "images": arrays[f"{prefix}/imgs"].transpose(0, 1, 3, 4, 2).astype(dtype),
    }
    return {k: tf.constant(v) for k, v in batch.items()}


def fill(entries, arrays, prefix="param/"):
    """Assigns every recorded parameter; every variable but the counters must be recorded."""
    recorded = {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
    for name, (variable, transform) in entries.items():
        if name not in recorded:
            assert name.endswith("num_batches_tracked"), f"{name} was not recorded"
            continue
        value = recorded.pop(name)
        variable.assign(transform(value) if transform else value)
    assert not recorded, f"recorded but unknown: {sorted(recorded)[:5]}"


def build(case, config=None, precision="float32", parameters=PARAMETERS, **changes):
    """The model with the recorded initial weights."""
    forward = case.sibling_meta("forward")
    hparams = hparams_of(config or case.meta.get("config") or forward["config"], forward["vocab"], precision, **changes)
    vgg = case.sibling("params_vgg")
    if not hparams.no_vgg_loss:
        widths = [vgg[f"param/slice{i}.{j}.bias"].size for i, j in ((1, 0), (2, 5), (3, 10), (4, 19), (5, 28))]
        hparams = hparams.replace(vgg_widths=tuple(widths), vgg_weights="random")
    size = case.sibling("forward")["batch/imgs"].shape[-2:]
    spec = {
        "images": tf.TensorSpec([None, *size, 3], tf.float32),
        "objects": None,
        "boxes": None,
        "triplets": None,
        "action_graph": None,
    }
    with models.float_policy(precision):
        model = AG2Vid(hparams, spec)
    arrays = {}
    for name in parameters:
        arrays |= case.sibling(name)
    arrays |= {k: v for k, v in case.arrays.items() if k.startswith("param/")}
    fill(convert.model_map(model), arrays)
    fill(convert.discriminator_map("", model.discriminator), case.sibling("params_disc"))
    if model.perceptual is not None:
        model.perceptual.network.load_torch(
            {"features." + k.split(".", 1)[1]: v for k, v in vgg.items() if k.startswith("param/slice")}
        )
    return model


def recorded_frames(x):
    """[B, T, H, W, C] -> the recording's [B, T, C, H, W]."""
    return np.asarray(x).transpose(0, 1, 4, 2, 3)


def train_frames(model, batch, boxes, vectors):
    """Frames and flows in training; `bp_prev` feeds generated frames back."""
    return model.draw_frames(batch["images"], batch["objects"], boxes, vectors, model.hparams.bp_prev, True)


def assert_frames(case, prefix, model, frames, flows, atol=5e-4, flow_atol=1e-3):
    start = model.hparams.n_frames_G - 1
    np.testing.assert_allclose(recorded_frames(frames), case.arrays[f"{prefix}/imgs_pred"][:, start:], 0, atol)
    if f"{prefix}/flows_pred" in case.arrays:
        # Slot t-1 of the recording holds the flow that makes frame t.
        recorded = case.arrays[f"{prefix}/flows_pred"][:, start - 1 : -1]
        np.testing.assert_allclose(recorded_frames(flows), recorded, 0, flow_atol)


def assert_buffers(entries, arrays, prefix, rtol):
    """u, v and running statistics after the recorded calls."""
    compared = 0
    for key in [k for k in arrays if k.startswith(prefix)]:
        variable, transform = entries[key[len(prefix) :]]
        value = transform(arrays[key]) if transform else arrays[key]
        scale = max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(variable.numpy() / scale, value / scale, rtol, rtol, err_msg=key)
        compared += 1
    return compared


# The cases.


def check_forward(case):
    model, batch = build(case), batch_of(case.arrays, "batch")
    vectors, boxes, clocked = model.move_boxes(batch)
    np.testing.assert_allclose(boxes, case.arrays["out/boxes_pred"], 1e-5, 1e-5)
    for value, key in zip(clocked, ("temporal_triplets", "relative_timesteps", "locs")):
        np.testing.assert_allclose(value, case.arrays[f"out/{key}"], 1e-6, 1e-6)
    seen = model.object_vectors(batch, (vectors, boxes, clocked))
    np.testing.assert_allclose(seen, case.arrays["mid/obj_vecs"], 1e-5, 1e-5)
    assert_frames(case, "out", model, *train_frames(model, batch, batch["boxes"], seen))
    assert assert_buffers(convert.model_map(model), case.arrays, "after/", 1e-4)


def check_forward_predicted_boxes(case):
    forward = case.sibling("forward")
    model, batch = build(case), batch_of(forward, "batch")
    _, boxes, _ = moved = model.move_boxes(batch)
    np.testing.assert_allclose(boxes, case.arrays["out/boxes_pred"], 1e-5, 1e-5)
    vectors = model.object_vectors(batch, moved)
    assert_frames(case, "out", model, *train_frames(model, batch, boxes, vectors))
    long_boxes = model.move_boxes(batch_of(case.arrays, "gbatch"))[1]
    np.testing.assert_allclose(long_boxes, case.arrays["out/graph_only_boxes"], 1e-5, 1e-5)


def check_losses(case):
    model, batch = build(case), batch_of(case.sibling("forward"), "batch")
    losses, gradients, fake = model.generator_gradients(batch)
    assert_losses(case.arrays, "loss_G/", losses, 1e-4, 1e-6)
    # Measured for float32: 4e-2 at worst, where a LeakyReLU's sign flips (specification section 14).
    assert_gradient_norms(case.arrays, "gradnorm/G/", convert.model_map(model), model, "generator", gradients, 1e-1)
    losses, gradients = model.discriminator_gradients(batch, fake)
    assert_losses(case.arrays, "loss_D/", losses, 1e-4, 1e-6)
    entries = convert.discriminator_map("", model.discriminator)
    assert_gradient_norms(case.arrays, "gradnorm/D/", entries, model, "discriminator", gradients, 1e-2)
    loss, gradients = model.graph_gradients(batch_of(case.sibling("forward_predboxes"), "gbatch"))
    assert_losses(case.arrays, "loss_graph/", {"bbox_pred": loss}, 1e-4, 1e-6)
    entries = convert.graph_map("module.", model.acts_to_boxes)
    assert_gradient_norms(case.arrays, "gradnorm/graph/", entries, model, "graph", gradients, 1e-4)


def check_losses_variants(case):
    switches = {
        "ls": {"gan_mode": "ls"},
        "original": {"gan_mode": "original"},
        "w": {"gan_mode": "w"},
        "no_feat": {"no_ganFeat_loss": True},
        "no_vgg": {"no_vgg_loss": True},
        "bp_prev": {"bp_prev": True},
    }
    batch = batch_of(case.sibling("forward"), "batch")
    for name in sorted({k.split("/")[0] for k in case.arrays}):
        model = build(case, **switches[name])
        losses, _, fake = model.generator_gradients(batch)
        # Free-running training is ill-conditioned: float32 against float64 differs by 3e-2 in the last frame.
        assert_losses(case.arrays, f"{name}/loss_G/", losses, 1e-4, 1e-5)
        if f"{name}/imgs_pred" in case.arrays:
            start = model.hparams.n_frames_G - 1
            recorded = case.arrays[f"{name}/imgs_pred"][:, start:]
            np.testing.assert_allclose(recorded_frames(fake), recorded, 0, 5e-2)
        losses, _ = model.discriminator_gradients(batch, fake)
        assert_losses(case.arrays, f"{name}/loss_D/", losses, 1e-4, 1e-5)


def check_training(case):
    """Two whole iterations; float32 `train` is compared on its first iteration only."""
    double = case.meta["case"] == "train_f64"
    batches = case.sibling("train") if double else case.arrays
    dtype = "float64" if double else "float32"
    zero = case.sibling_meta("train")["params_with_numerically_zero_gradient"]
    model = build(case, config=case.sibling_meta("train")["config"], precision=dtype)
    iterations = len({k.split("/")[1] for k in case.arrays if k.startswith("loss_G/")})
    with policy(dtype):
        for i in range(iterations):
            check_iteration(case, model, i, batches, dtype)
            if not double:
                return
    compare_final(case.arrays, "final/model/", convert.model_map(model), set(zero["model"]))
    entries = convert.discriminator_map("", model.discriminator)
    compare_final(case.arrays, "final/disc/", entries, set(zero.get("disc", zero.get("D", []))))


def check_iteration(case, model, i, batches, dtype):
    rtol, atol = (1e-9, 1e-12) if dtype == "float64" else (1e-4, 1e-5)
    # Gradient norms in float32: worst measured 7e-3 for the generator, 3e-3 for the discriminator.
    norms = (1e-9, 1e-9, 1e-9) if dtype == "float64" else (1e-1, 1e-2, 1e-4)
    batch = batch_of(batches, f"batch{i}", dtype)
    losses, gradients, fake = model.generator_gradients(batch)
    assert_losses(case.arrays, f"loss_G/it{i}/", losses, rtol, atol)
    entries = convert.model_map(model)
    assert_gradient_norms(case.arrays, f"gradnorm/it{i}/G/", entries, model, "generator", gradients, norms[0])
    judged, discriminator_gradients = model.discriminator_gradients(batch, fake)
    assert_losses(case.arrays, f"loss_D/it{i}/", judged, rtol, atol)
    entries = convert.discriminator_map("", model.discriminator)
    assert_gradient_norms(
        case.arrays, f"gradnorm/it{i}/D/", entries, model, "discriminator", discriminator_gradients, norms[1]
    )
    loss, graph_gradients = model.graph_gradients(batch_of(batches, f"gbatch{i}", dtype))
    assert_losses(case.arrays, f"loss_graph/it{i}/", {"bbox_pred": loss}, rtol, atol)
    entries = convert.graph_map("module.", model.acts_to_boxes)
    assert_gradient_norms(case.arrays, f"gradnorm/it{i}/graph/", entries, model, "graph", graph_gradients, norms[2])
    model.apply_gradients("generator", gradients, model.hparams.lr)
    model.apply_gradients("discriminator", discriminator_gradients, model.hparams.lr)
    model.apply_gradients("graph", graph_gradients, model.hparams.lr)


def check_sample(case):
    model, batch = build(case), batch_of(case.arrays, "batch")
    for prefix in sorted(k.split("/")[0] for k in case.arrays if k.endswith("/imgs_pred")):
        given = dict(batch)
        if f"{prefix}/actions" in case.arrays:
            given["action_graph"] = tf.constant(case.arrays[f"{prefix}/actions"])
        _, boxes, _ = moved = model.move_boxes(given)
        np.testing.assert_allclose(boxes, case.arrays[f"{prefix}/boxes_pred"], 1e-5, 1e-5)
        used = batch["boxes"] if prefix == "gt" else boxes
        vectors = model.object_vectors(given, moved)
        frames, flows = model.draw_frames(batch["images"], batch["objects"], used, vectors, True, False)
        assert_frames(case, prefix, model, frames, flows, 1e-4, 1e-3)


def check_variant(case):
    forward = case.sibling("forward")
    model = build(case, parameters=("params_netG",))
    batch = batch_of(forward, "batch")
    moved = model.move_boxes(batch)
    vectors = model.object_vectors(batch, moved)
    assert_frames(case, "train", model, *train_frames(model, batch, batch["boxes"], vectors), 2e-4, 1e-3)
    model = build(case, parameters=("params_netG",))
    np.testing.assert_allclose(moved[1], case.arrays["eval/boxes_pred"], 1e-5, 1e-5)
    frames, flows = model.draw_frames(batch["images"], batch["objects"], moved[1], vectors, True, False)
    assert_frames(case, "eval", model, frames, flows, 2e-4, 1e-3)


# What they share.


@contextlib.contextmanager
def policy(dtype):
    with models.float_policy(dtype):
        yield


def assert_losses(arrays, prefix, losses, rtol, atol):
    for key in [k for k in arrays if k.startswith(prefix)]:
        name = key[len(prefix) :]
        if name in losses:
            np.testing.assert_allclose(losses[name], arrays[key], rtol, atol, err_msg=key)
        else:
            assert name == "total_loss" and len(losses) == 1, f"{key} was recorded and not computed"


def assert_gradient_norms(arrays, prefix, entries, model, optimizer, gradients, rtol):
    """Norms above 1e-4 (below is rounding of gradients that are zero in exact arithmetic)."""
    by_variable = {id(v): g for v, g in zip(model.optimizers_by_name[optimizer].targets, gradients)}
    compared = 0
    for key in [k for k in arrays if k.startswith(prefix)]:
        if arrays[key] < 1e-4:
            continue
        gradient = by_variable[id(entries[key[len(prefix) :]][0])]
        norm = tf.norm(tf.reshape(tf.convert_to_tensor(gradient), [-1]))
        np.testing.assert_allclose(norm, arrays[key], rtol, err_msg=key)
        compared += 1
    assert compared


def compare_final(arrays, prefix, entries, skipped):
    """Finals are stored in float32: whole, or as statistics and probes."""
    for name, (variable, transform) in entries.items():
        if name in skipped:
            continue
        if prefix + name in arrays:
            value = arrays[prefix + name]
            value = transform(value) if transform else value
            np.testing.assert_allclose(variable.numpy(), value, 1e-6, 1e-7, err_msg=name)
        elif f"{prefix[:-1]}_stat/{name}" in arrays:
            statistics, probe = (arrays[f"{prefix[:-1]}_{part}/{name}"] for part in ("stat", "probe"))
            value = as_recorded(variable, transform)
            found = [value.mean(), value.std(), np.linalg.norm(value)]
            np.testing.assert_allclose(found, statistics, 1e-6, 1e-7, err_msg=name)
            places = np.unique(np.linspace(0, value.size - 1, len(probe)).astype(np.int64))
            np.testing.assert_allclose(value.ravel()[places], probe, 1e-6, 1e-7, err_msg=name)
        else:
            assert name.endswith("num_batches_tracked"), f"{name} was not recorded"


def as_recorded(variable, transform):
    """The variable in the recording's layout: the inverse of `transform`."""
    value = variable.numpy()
    if transform is None:
        return value
    if value.ndim > 1:
        return value.transpose({4: (3, 2, 0, 1), 2: (1, 0)}[value.ndim])
    result = np.empty_like(value)  # v of a spectral norm
    result[transform(np.arange(value.size))] = value
    return result


def check_parameters(case):
    """Every recorded parameter has a place; shapes are checked as they are assigned."""
    build(dataclasses.replace(case, name="forward"))


RUNNERS = {
    "forward": check_forward,
    "forward_predboxes": check_forward_predicted_boxes,
    "losses": check_losses,
    "losses_variants": check_losses_variants,
    "params_": check_parameters,
    "train": check_training,
    "sample": check_sample,
    "variant_": check_variant,
    "data_cater": ag2vid_data.check_cater,
    "data_smth": ag2vid_data.check_something,
    "metrics": ag2vid_metrics.check_metrics,
}
