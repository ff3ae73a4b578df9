"""Writes checkpoints as TensorFlow 1 wrote them, for tests."""

import os

import numpy as np
import tensorflow as tf


def write_checkpoint(prefix, tensors, v1=False, latest=True):
    """Writes {name: array} with tf.compat.v1.train.Saver; returns the prefix."""
    tf.io.gfile.makedirs(os.path.dirname(str(prefix)))
    version = tf.compat.v1.train.SaverDef.V1 if v1 else tf.compat.v1.train.SaverDef.V2
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(n, initializer=a, use_resource=True) for n, a in tensors.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(variables, write_version=version)
        saver.save(session, str(prefix), write_meta_graph=True, write_state=latest)
    return str(prefix)


def write_quickly(prefix, tensors):
    """The same files as `write_checkpoint` (format V2) without a graph and its .meta file."""
    tf.io.gfile.makedirs(os.path.dirname(str(prefix)))
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=list(tensors), shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )  # fmt: skip
    return str(prefix)


def with_trainer_state(parameters, step):
    """What the original's trainer saves beside the weights: step, Adam's moments and powers."""
    tensors = {**parameters, "global_step": np.array(step, np.int64)}
    for name, array in parameters.items():
        # Their values count for nothing; one element instead of all saves the tests a minute.
        tensors[f"{name}/Adam"] = array.ravel()[:1]
        tensors[f"{name}/Adam_1"] = array.ravel()[:1]
    for scope in ("g_apply_gradients", "d_apply_gradients"):
        tensors[f"{scope}/beta1_power"] = np.array(0.1, np.float32)
        tensors[f"{scope}/beta2_power"] = np.array(0.2, np.float32)
    return tensors
