"""Export: what is written loads and runs anywhere, and nothing else is written."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.harness import check_served
from tests.toy_model import CONTEXT, SIZE, Toy, toy_hparams, toy_images, toy_spec
from tfvid.errors import UserError
from tfvid.layers import winograd
from tfvid.serving.export import check_signature, compiled_functions, export
from tfvid.serving.saved_model import read_signatures, versions


class ServedToy(Toy):
    """`Toy` with the signature that a real model has."""

    output = "dict"

    def signatures(self):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, CONTEXT, SIZE, SIZE, 3], tf.uint8, name="images"),
                tf.TensorSpec([], tf.int64, name="seed"),
            ]
        )
        def serve(images, seed):
            if self.output == "python":
                images = tf.numpy_function(lambda x: x, [images], tf.uint8)
                images = tf.ensure_shape(images, [None, CONTEXT, SIZE, SIZE, 3])
            videos = self.generate({"images": images}, seed)["images"][0]
            return videos if self.output == "tensor" else {"images": videos}

        return {"serving_default": serve}


@pytest.fixture
def toy():
    return ServedToy(toy_hparams(), toy_spec(), seed=3)


def test_served_model_keeps_its_promises(toy, tmp_path):
    path = export(toy, str(tmp_path / "out"), model_name="toy")
    assert path == str(tmp_path / "out" / "1")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["1"]
    check_served(path, tmp_path)


def test_served_values_are_the_models(toy, tmp_path):
    path = export(toy, str(tmp_path))
    images = toy_images(2)[:, :CONTEXT]
    served = tf.saved_model.load(path).signatures["serving_default"](images=images, seed=np.int64(7))
    np.testing.assert_allclose(served["images"], toy.generate({"images": images}, 7)["images"][0], atol=1e-6)


def test_export_needs_no_xla(tmp_path):
    """Convolutions that run by XLA in this process are direct in an export, whatever was traced before."""
    kernel = tf.Variable(tf.random.stateless_normal([3, 3, 128, 128], [1, 2]) / 30)

    class Wide(ServedToy):
        def signatures(self):
            spec = [tf.TensorSpec([None, 32, 32, 128], name="images")]
            return {"serving_default": tf.function(lambda images: {"images": winograd.conv2d(images, kernel)}, spec)}

    model = Wide(toy_hparams(), toy_spec(), seed=3)
    function = model.signatures()["serving_default"].get_concrete_function()
    with pytest.raises(ValueError, match="needs XLA"):
        check_signature("serving_default", function)
    images = tf.random.stateless_normal([2, 32, 32, 128], [3, 4])
    served = tf.saved_model.load(export(model, str(tmp_path))).signatures["serving_default"]
    assert not compiled_functions(served)
    # The largest difference of the two ways is 2.1e-5, of results of deviation 1.1 (tests/layers/test_winograd.py).
    np.testing.assert_allclose(served(images=images)["images"], function(images=images)["images"], rtol=0, atol=4e-5)


def test_only_what_a_signature_reads_is_written(toy, tmp_path):
    path = export(toy, str(tmp_path))
    names = [shape for _, shape in tf.train.list_variables(f"{path}/variables/variables")]
    kept = sum(int(np.prod(shape)) for shape in names if shape)
    assert kept == sum(int(np.prod(w.shape)) for w in toy.generator.weights)


def test_description_and_signatures(toy, tmp_path):
    path = export(toy, str(tmp_path), model_name="toy")
    described = json.loads((pathlib.Path(path) / "assets.extra/tfvid.json").read_text())
    assert described["model"] == "toy" and described["hparams"] == toy.hparams.to_dict()
    assert described["signatures"] == read_signatures(path)
    inputs = described["signatures"]["serving_default"]["inputs"]
    assert inputs == {
        "images": {"shape": [None, CONTEXT, SIZE, SIZE, 3], "dtype": "uint8"},
        "seed": {"shape": [], "dtype": "int64"},
    }


def test_versions_count_up_and_are_never_overwritten(toy, tmp_path):
    for _ in range(2):
        export(toy, str(tmp_path))
    export(toy, str(tmp_path), version=9)
    assert versions(str(tmp_path)) == [1, 2, 9]
    with pytest.raises(UserError, match="not in .* yet. Received: 2"):
        export(toy, str(tmp_path), version=2)
    with pytest.raises(UserError, match="positive"):
        export(toy, str(tmp_path), version=0)


def test_left_over_of_an_interrupted_export_is_replaced(toy, tmp_path):
    (tmp_path / "incomplete-1").mkdir()
    (tmp_path / "incomplete-1" / "junk").write_text("x")
    path = pathlib.Path(export(toy, str(tmp_path)))
    assert not (path / "junk").exists() and versions(str(tmp_path)) == [1]


def test_export_into_ram(toy):
    path = export(toy, "ram://exported/toy")
    assert path == "ram://exported/toy/1" and versions("ram://exported/toy") == [1]
    loaded = tf.saved_model.load(path).signatures["serving_default"]
    assert loaded(images=toy_images(1)[:, :CONTEXT], seed=np.int64(0))["images"].shape[0] == 1
    tf.io.gfile.rmtree("ram://exported")


@pytest.mark.parametrize(
    "output, message", [("python", "no Python operation. Received: .*PyFunc"), ("tensor", "dictionary of outputs")]
)
def test_what_no_server_can_run_is_refused(toy, tmp_path, output, message):
    toy.output = output
    with pytest.raises(ValueError, match=message):
        export(toy, str(tmp_path))
    assert versions(str(tmp_path)) == []


def test_model_without_signatures(tmp_path):
    with pytest.raises(UserError, match="Toy has no signatures"):
        export(Toy(toy_hparams(), toy_spec()), str(tmp_path))


def test_saved_model_cli_runs_it(toy, tmp_path):
    path = export(toy, str(tmp_path / "out"))
    np.save(tmp_path / "images.npy", toy_images(2)[:, :CONTEXT])
    np.save(tmp_path / "seed.npy", np.int64(7))
    code = "import sys; from tensorflow.python.tools.saved_model_cli import main; sys.exit(main())"
    arguments = ["run", "--dir", path, "--tag_set", "serve", "--signature_def", "serving_default"]
    inputs = f"images={tmp_path}/images.npy;seed={tmp_path}/seed.npy"
    command = [sys.executable, "-I", "-c", code, *arguments, "--inputs", inputs, "--outdir", str(tmp_path / "results")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    expected = toy.generate({"images": toy_images(2)}, 7)["images"][0]
    np.testing.assert_allclose(np.load(tmp_path / "results" / "images.npy"), expected, atol=1e-5)
