"""Run in a process of its own by test_strategy.py: two logical CPU devices against one."""

import json
import sys

from tfvid import cli

cli.import_tensorflow_quietly()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from tests.toy_model import toy_hparams, toy_images, toy_spec, weights_of  # noqa: E402
from tfvid import models  # noqa: E402
from tfvid.training import strategy as strategy_lib  # noqa: E402


def trained(kind, noise):
    """Weights, moments and the validation after a few steps, with two devices or one."""
    strategy = strategy_lib.make(kind, ["CPU:0", "CPU:1"])
    with strategy.scope():
        model = models.build("toy", toy_hparams(noise=noise, clip_norm=0.05), toy_spec())
    data = tf.data.Dataset.from_tensor_slices({"images": toy_images(24)}).batch(4, drop_remainder=True)
    model.fit(strategy_lib.distribute(strategy, data), steps_per_epoch=5, verbose=0, shuffle=False)
    padded = {"images": toy_images(8), "valid": np.arange(8) < 5}
    batches = tf.data.Dataset.from_tensor_slices(padded).batch(4, drop_remainder=True)
    batches = strategy_lib.distribute(strategy, batches)
    return weights_of(model), model.evaluate(batches, steps=2, verbose=0, return_dict=True)["mse"]


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(float(np.abs(a[k].astype(float) - b[k]).max()) for k in a)


def noise_of_replicas():
    """[2, 3]: what each replica draws in the same step under the same name."""
    strategy = strategy_lib.make("mirrored", ["CPU:0", "CPU:1"])
    with strategy.scope():
        model = models.build("toy", toy_hparams(), toy_spec())
    drawn = tf.function(lambda: strategy.run(lambda: model.train_draws().normal("z", [3])))()
    return [v.numpy().tolist() for v in strategy.experimental_local_results(drawn)]


def main():
    models.MODELS["toy"] = "tests.toy_model:Toy"
    strategy_lib.set_up_devices(cpu_devices=2, deterministic=False)
    one, one_mse = trained("one", 0.0)
    two, two_mse = trained("mirrored", 0.0)
    print(json.dumps({
        "difference": largest_difference(one, two),
        "validation": [one_mse, two_mse],
        "steps": int(two["generator/counts"][0]),
        "noise": noise_of_replicas(),
    }))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
