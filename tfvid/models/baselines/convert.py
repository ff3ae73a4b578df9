"""Published TensorFlow 1 checkpoints of the baselines -> their variables: the names are the same."""

from tfvid.conversion import tf1_checkpoint

OPTIMIZER_SUFFIXES = ("/Adam", "/Adam_1")

read_source = tf1_checkpoint.read


def variable_map(model):
    """{variable path: name in the checkpoint}."""
    return {v.path: v.path for v in model.weights}


def is_ignorable(name):
    """Whether a checkpoint's entry is the trainer's: step counter, Adam's moments and powers."""
    return (
        name == "global_step"
        or name.endswith(OPTIMIZER_SUFFIXES)
        or name.rpartition("/")[2] in ("beta1_power", "beta2_power")
    )
