"""Devices: which strategy a training uses, and how it spreads the batches.

The seed, the step and the index of the replica determine every draw, and the batch of a
step does not depend on the number of replicas, so that N devices give the update of one.
"""

import tensorflow as tf

from tfvid.errors import UserError

NAMES = ("auto", "one", "mirrored", "multi_worker")


def set_up_devices(cpu_devices=1, deterministic=True):
    """Configures TensorFlow; call it before TensorFlow is used.

    Args:
      cpu_devices: logical devices that the CPU shows; a way to try several replicas
        without accelerators.
      deterministic: every operation gives the same bits each time; an accelerator may
        be slower for it.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    if cpu_devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpu_devices)
        except RuntimeError:  # TensorFlow was used before, in the same process
            if len(tf.config.list_logical_devices("CPU")) != cpu_devices:
                raise UserError(
                    f"--cpu_devices: expected to be set before TensorFlow is used. Received: {cpu_devices}"
                ) from None
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def resolve(name, cluster, cpu_devices=1):
    """The strategy that `auto` stands for; checks a named one. Starts nothing.

    Returns:
      "one", "mirrored" or "multi_worker".
    """
    if name not in NAMES:
        raise UserError(f"--strategy: expected one of {', '.join(NAMES)}. Received: {name!r}")
    if name == "auto":
        if cluster is not None:
            return "multi_worker"
        gpus = len(tf.config.list_physical_devices("GPU"))
        return "mirrored" if gpus > 1 or (not gpus and cpu_devices > 1) else "one"
    if name == "multi_worker" and cluster is None:
        raise UserError("--strategy=multi_worker: expected TF_CONFIG in the environment, found none")
    if name != "multi_worker" and cluster is not None:
        raise UserError(f"--strategy={name}: expected multi_worker (or auto), since TF_CONFIG is set")
    return name


def local_devices(kind, cpu_devices=1):
    """Names of the devices that take part in this process."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    if kind == "one":
        return ["GPU:0" if gpus else "CPU:0"]
    cpus = 1 if kind == "multi_worker" else cpu_devices
    return [f"GPU:{i}" for i in range(gpus)] or [f"CPU:{i}" for i in range(cpus)]


def check_batch_size(batch_size, workers, devices):
    """UserError unless a step's batch can be dealt out evenly."""
    replicas = workers * devices
    if batch_size % replicas:
        raise UserError(
            f"hyper-parameter batch_size: expected a multiple of the {replicas} devices"
            f" ({workers} workers with {devices}). Received: batch_size={batch_size}"
        )


def make(kind, devices):
    """The tf.distribute strategy; a multi-worker one waits here for the others."""
    if kind == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if kind == "mirrored":
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()


def distribute(strategy, batches, workers=1):
    """Batches of this worker -> what `fit` and `evaluate` take.

    Args:
      batches: a tf.data.Dataset of batch dictionaries; a batch has the clips of all
        replicas of this worker, in the order of the replicas.
    """
    replicas = strategy.num_replicas_in_sync // workers
    if strategy.num_replicas_in_sync == 1:
        return batches
    if replicas > 1:
        # One element for each replica: slices of the batch, in order.
        def deal(x):  # [B, ...] -> [replicas, B / replicas, ...]
            return tf.reshape(x, [replicas, x.shape[0] // replicas, *x.shape[1:]])

        batches = batches.map(lambda batch: tf.nest.map_structure(deal, batch)).unbatch()
    return strategy.distribute_datasets_from_function(lambda _: batches)
