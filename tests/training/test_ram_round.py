"""One round in ram://: data, training, generation, evaluation in shards, export; as it would be in gs://."""

import json

import numpy as np
import tensorflow as tf

from tests.toy_model import CONTEXT, toy_images, write_toy_dataset
from tfvid import models
from tfvid.evaluation import evaluate as evaluate_lib
from tfvid.evaluation import generation
from tfvid.serving.export import export
from tfvid.serving.warmup import read_warmup
from tfvid.training.run_folder import RunFolder

QUIET = {"report": lambda line: None}


def test_train_generate_evaluate_export(train_toy, monkeypatch):
    monkeypatch.setitem(models.MODELS, "toy", "tests.serving.test_export:ServedToy")
    root = "ram://round"
    write_toy_dataset(f"{root}/data")
    assert train_toy(f"{root}/run", input_dir=f"{root}/data", image_summary_freq=6)[0].step == 6

    wanted = {"split": "val", "num_samples": 2, "num_videos": 4, "batch_size": 2}
    page = generation.generate(f"{root}/run", f"{root}/generated", generation.Request(**wanted), **QUIET)
    assert page == f"{root}/generated/index.html" and tf.io.gfile.exists(page)
    assert tf.io.gfile.exists(f"{root}/generated/clip_00003.gif")

    summaries = {}
    for name, shards in (("whole", 1), ("parts", 2)):
        for i in range(shards):
            metrics = ("psnr", "mse")  # SSIM needs larger frames
            request = evaluate_lib.Request(**wanted, metrics=metrics, num_shown=1, shard=(i, shards))
            evaluate_lib.evaluate([f"{root}/run"], f"{root}/{name}", request, **QUIET)
        with tf.io.gfile.GFile(f"{root}/{name}/summary.json") as f:
            summaries[name] = json.loads(f.read())
    for summary in summaries.values():
        del summary["seconds"], summary["label"]
    assert summaries["whole"] == summaries["parts"] and summaries["whole"]["protocol"]["clips"] == 4

    model = RunFolder.open(f"{root}/run").load_model()
    path = export(model, f"{root}/exported", model_name="toy")
    served = tf.saved_model.load(path).signatures["serving_default"]
    images = toy_images(1)[:, :CONTEXT]
    expected = model.generate({"images": images}, 3)["images"][0]
    np.testing.assert_allclose(served(images=images, seed=np.int64(3))["images"], expected, atol=1e-6)
    assert [signature for _, signature, _ in read_warmup(path)] == ["serving_default"]
    tf.io.gfile.rmtree(root)
