"""The one table from a model's name to its class, and the one way to build a model."""

import contextlib
import importlib

from tfvid.errors import UserError

# Name -> "module:class"; modules are imported when they are asked for.
MODELS = {
    "savp": "tfvid.models.savp.model:SAVP",
    "sna": "tfvid.models.baselines.sna:SNA",
    "sv2p": "tfvid.models.baselines.sv2p:SV2P",
    "dna": "tfvid.models.baselines.dna:DNA",
    "caddy": "tfvid.models.caddy.model:Caddy",
    "actvae": "tfvid.models.actvae.model:ActVAE",
    "actvae_p2i": "tfvid.models.actvae.model_p2i:ActVAEP2I",
    "ag2vid": "tfvid.models.ag2vid.model:AG2Vid",
    "cage": "tfvid.models.cage.model:Cage",
    "cage_autoencoder": "tfvid.models.cage.model_autoencoder:CageAutoencoder",
    "repeat": "tfvid.models.baselines.repeat:Repeat",
}


def model_class(name):
    """The class called `name` in MODELS; UserError for another name."""
    if name not in MODELS:
        raise UserError(f"--model: expected one of {', '.join(MODELS)}. Received: {name!r}")
    module, cls = MODELS[name].split(":")
    return getattr(importlib.import_module(module), cls)


def build(name, hparams, spec, seed=0, trainable=True, training_networks=True):
    """Builds a model with all its variables and optimiser slots.

    Call it under the strategy's scope that the model is to be trained with.

    Args:
      name: a key of MODELS.
      hparams: an instance of the model's HPARAMS, data set defaults merged in.
      spec: {key: tf.TensorSpec} of one element of the data, see `VideoModel`.
      seed: seed of the initial weights and of every draw.
      trainable: False leaves the optimisers' moments out; such a model cannot train.
      training_networks: False leaves out what only training uses, such as discriminators.
    """
    import keras
    from keras.src.utils import naming

    from tfvid.models import optimizers
    from tfvid.models.video_model import without_training_networks

    if trainable and not training_networks:
        raise ValueError("expected trainable=False without training_networks. Received: trainable=True")
    cls = model_class(name)
    # Weights are saved by path, which must not depend on what was built before.
    naming.reset_uids()
    slots = contextlib.nullcontext() if trainable else optimizers.without_slots()
    networks = contextlib.nullcontext() if training_networks else without_training_networks()
    with float_policy(hparams.precision), slots, networks:
        keras.utils.set_random_seed(seed % 2**32)
        model = cls(hparams, spec, seed=seed)
    model.check_spec()
    return model


@contextlib.contextmanager
def float_policy(precision):
    """Builds layers within it under this Keras dtype policy (float64: floatx too)."""
    import keras

    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(precision)
    keras.config.set_floatx("float64" if precision == "float64" else "float32")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
