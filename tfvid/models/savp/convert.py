"""Published TensorFlow 1 checkpoints of SAVP -> its variables.

Variables here have the original's names as their paths, so the map is the identity for
every option. Adam's moments are not taken over: a converted model starts a new training.
"""

import re

from tfvid.conversion import tf1_checkpoint
from tfvid.models.baselines.convert import is_ignorable as is_trainer_state

# Discriminators of before December 2018: other networks, which nothing here can use.
OLD_DISCRIMINATORS = re.compile(r"discriminator_encoder/|discriminator/(encoder/)?[a-z]*_?(sn_)?(conv|fc|layer)")
# What the generator's cell was called before December 2018.
OLD_CELL, CELL = "/dna_cell/", "/savp_cell/"


def canonical_name(name):
    """Today's name of a variable: checkpoints before December 2018 say dna_cell for savp_cell."""
    return name.replace(OLD_CELL, CELL)


def read_source(path):
    """{name of today: array} of a TensorFlow 1 checkpoint."""
    return {canonical_name(name): array for name, array in tf1_checkpoint.read(path).items()}


def variable_map(model):
    """{variable path: name in the checkpoint, after `canonical_name`}."""
    return {v.path: v.path for v in model.weights}


def is_ignorable(name):
    """Whether the model has no use for an entry: the trainer's state and old discriminators."""
    return is_trainer_state(name) or OLD_DISCRIMINATORS.match(name) is not None


def is_optional(path):
    """Discriminators: old checkpoints have other ones, and only training needs them."""
    return path.startswith("discriminator/")
