"""Published files of CAGE, its autoencoders and vision transformers, written here without PyTorch."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.conversion.test_torch_file import _Global, _Raw, _tensor, _zip
from tests.models import cage_tiny
from tfvid.conversion.convert import Request, convert
from tfvid.errors import UserError
from tfvid.models.cage import convert as cage_convert
from tfvid.models.cage import convert_autoencoder
from tfvid.models.cage.frozen import load_vit
from tfvid.training.run_folder import RunFolder


def save(path, tree):
    """Writes nested dictionaries of arrays and numbers as `torch.save` does."""
    storages = {}

    def packed(value):
        if isinstance(value, dict):
            return {k: packed(v) for k, v in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        key = str(len(storages))
        storages[key] = value.tobytes()
        stride = tuple(s // value.itemsize for s in np.array(value, order="C").strides)
        kind = {"float32": "Float", "int64": "Long"}[value.dtype.name]
        return _tensor(kind, key, value.size, value.shape, stride)

    return _zip(path, packed(tree), storages)


def original(sources, model):
    """{name in the original: array} of a model's weights, in the original's layouts."""
    layouts = {4: (3, 2, 0, 1), 2: (1, 0)}
    values = {v.path: v.numpy() for v in model.weights}
    arrays = {}
    for path, source in sources.items():
        value = values[path]
        if source.transform is not None:
            value = value.transpose(layouts[value.ndim])
            np.testing.assert_array_equal(source.transform(value), values[path])
        arrays[source.name] = np.array(value, order="C")  # a number stays without axes
    return arrays


def options(values):
    """A file of hyper-parameters' content."""
    return json.dumps({k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})


@pytest.fixture(scope="module")
def model():
    return cage_tiny.cage(seed=5)


@pytest.fixture(scope="module")
def arrays(model):
    extra = {
        "vector_field_regressor.time_projection.0.weight": np.zeros((4, 1), np.float32),
        "dino.mask_token": np.zeros((1, 8), np.float32),
    }
    return {**original(cage_convert.variable_map(model), model), **extra}


def converted(tmp_path, name, source, values, **more):
    (tmp_path / "hparams.json").write_text(options(values))
    request = Request(
        model=name, source=source, output_dir=str(tmp_path / "run"), hparams=str(tmp_path / "hparams.json"), **more
    )
    _, report = convert(request)
    return RunFolder.open(str(tmp_path / "run")).load_model(), report


def compare(ours, theirs):
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


@pytest.mark.parametrize("form", ["plain", "module", "old_name"])
def test_a_whole_model(tmp_path, model, arrays, form):
    state = dict(arrays)
    if form == "module":
        state = {f"module.{k}": v for k, v in state.items()}
    if form == "old_name":
        state = {k.replace("feats_project_in", "dino_project_in"): v for k, v in state.items()}
    optimizer = {"state": {"0": {"exp_avg": np.zeros(3, np.float32)}}}
    step = np.array(77) if form == "module" else 77
    path = save(tmp_path / "model.pth", {"model": state, "optimizer": optimizer, "global_step": step})
    loaded, report = converted(tmp_path, "cage", path, cage_tiny.CAGE)
    compare(loaded, model)
    assert int(loaded.step) == 77 and len(report.assigned) == len(model.weights)
    assert {"vector_field_regressor.time_projection.0.weight", "dino.mask_token"} <= set(report.ignored)
    assert loaded.spec["images"].shape == (6, *cage_tiny.SIZE, 3)


def test_other_files_are_refused(tmp_path, arrays):
    unknown = {**arrays, "vector_field_regressor.extra": np.zeros(2, np.float32)}
    with pytest.raises(UserError, match="it holds 'vector_field_regressor.extra'"):
        converted(tmp_path, "cage", save(tmp_path / "a.pth", {"model": unknown}), cage_tiny.CAGE)
    missing = {k: v for k, v in arrays.items() if k != "vector_field_regressor.msk_token"}
    with pytest.raises(UserError, match="it has no 'vector_field_regressor.msk_token'"):
        converted(tmp_path, "cage", save(tmp_path / "b.pth", {"model": missing}), cage_tiny.CAGE)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["ldm-vq", "ours"])
@pytest.mark.parametrize("form", ["own", "whole", "module"])
def test_autoencoders(tmp_path, kind, form):
    own = {} if kind == "ldm-vq" else {"autoencoder_type": kind, "autoencoder_groups": 2, "autoencoder_width": 4}
    model = cage_tiny.autoencoder(seed=3, gan_weight=0.8, **own)
    arrays = original(convert_autoencoder.variable_map(model), model)
    discriminator = {k: v for k, v in arrays.items() if k.startswith("loss.")}
    assert "loss.discriminator.main.0.weight" in discriminator and "loss.discriminator.main.5.weight" in discriminator
    alone = {k: v for k, v in arrays.items() if k not in discriminator}
    tree = {
        "own": {
            "state_dict" if kind == "ldm-vq" else "model": {**arrays, "loss.perceptual.x": np.zeros(1, np.float32)}
        },
        "whole": {"model": {f"{'ae.' if kind == 'ldm-vq' else 'ae.backbone.'}{k}": v for k, v in alone.items()}},
        "module": {"model": {f"module.{k}": v for k, v in alone.items()}},
    }[form]
    values = {**cage_tiny.AUTOENCODER, "ndf": 4, "d_layers": 1, **own}
    path = save(tmp_path / "autoencoder.ckpt", tree)
    loaded, report = converted(tmp_path, "cage_autoencoder", path, values, image_size=(*cage_tiny.SIZE, 3))
    compare(loaded.autoencoder, model.autoencoder)
    if form == "own":
        compare(loaded.discriminator, model.discriminator)
    else:
        assert any(p.startswith("discriminator/") for p in report.untouched)


def test_training_state_beside_the_weights_is_left_out(tmp_path):
    tree = {
        "model": {"module.backbone.encoder.conv_in.bias": np.ones(2, np.float32)},
        "callbacks": {_Raw("cpytorch_lightning.callbacks\nModelCheckpoint\n"): {"best": 1}},
        "hyper_parameters": _Global("argparse.Namespace"),
        "loss": _Global("numpy.core.multiarray.scalar", 1),
        # defaultdict(list, {"a": 1}): a call, then an item set on its result.
        "counts": _Raw("ccollections\ndefaultdict\n(c__builtin__\nlist\ntR(X\x01\x00\x00\x00aK\x01u"),
    }
    tensors = convert_autoencoder.read_source(save(tmp_path / "last.ckpt", tree))
    assert tensors.keys() == {"encoder.conv_in.bias"}
    with pytest.raises(UserError, match="refused: it names 'os.system'"):
        convert_autoencoder.read_source(save(tmp_path / "bad.ckpt", {**tree, "loss": _Global("os.system", "x")}))


def test_the_published_sizes_are_known(tmp_path):
    hparams = cage_tiny.autoencoder().hparams
    assert convert_autoencoder.data_spec(hparams.replace(dataset="clevrer"))["images"].shape == (6, 128, 128, 3)
    with pytest.raises(UserError, match="--image_size: expected height,width,channels"):
        convert_autoencoder.data_spec(hparams)


def hub_arrays(vit):
    arrays = original(cage_convert.as_sources(cage_convert.vit_map("", vit)), vit)
    return {**arrays, "mask_token": np.zeros((1, 8), np.float32)}


def hugging_face(arrays):
    """The same arrays as Hugging Face names them."""
    renamed = {}
    back = {v: k for k, v in cage_convert.HUGGING_FACE.items()}
    outer = {
        "cls_token": "embeddings.cls_token", "mask_token": "embeddings.mask_token",
        "pos_embed": "embeddings.position_embeddings", "norm.weight": "layernorm.weight", "norm.bias": "layernorm.bias",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    }  # fmt: skip
    for name, value in arrays.items():
        if name in outer:
            renamed[outer[name]] = value
            continue
        _, number, rest = name.split(".", 2)
        if rest.startswith("attn.qkv."):
            kind = rest.rsplit(".", 1)[1]
            for part, piece in zip(("query", "key", "value"), np.split(value, 3)):
                renamed[f"encoder.layer.{number}.attention.attention.{part}.{kind}"] = piece
        elif rest in back:
            renamed[f"encoder.layer.{number}.{back[rest]}"] = value
        else:
            whole, kind = rest.rsplit(".", 1)
            renamed[f"encoder.layer.{number}.{back[whole]}.{kind}"] = value
    return renamed


def save_safetensors(path, arrays):
    header, content = {}, b""
    for name, value in arrays.items():
        data = np.ascontiguousarray(value).tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(value.shape),
            "data_offsets": [len(content), len(content) + len(data)],
        }
        content += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return str(path)


@pytest.mark.parametrize("form", ["hub", "safetensors", "bin"])
def test_vision_transformers(tmp_path, model, form):
    arrays = hub_arrays(model.vit)
    if form == "hub":
        path = save(tmp_path / "dinov2.pth", arrays)
    elif form == "bin":
        path = save(tmp_path / "pytorch_model.bin", {f"dinov2.{k}": v for k, v in hugging_face(arrays).items()})
    else:
        path = save_safetensors(tmp_path / "model.safetensors", hugging_face(arrays))
    other = cage_tiny.cage(seed=6).vit
    cage_convert.assign_vit(other, path)
    compare(other, model.vit)


def test_another_vision_transformer_is_refused(tmp_path, model):
    arrays = hub_arrays(model.vit)
    arrays["norm.weight"] = np.zeros(5, np.float32)
    with pytest.raises(UserError, match="norm.weight"):
        cage_convert.assign_vit(model.vit, save(tmp_path / "dinov2.pth", arrays))
    with pytest.raises(UserError, match="vit_checkpoint: expected a file, found none at nowhere.pth"):
        load_vit(model.vit, "nowhere.pth")


def test_positions_are_resized_from_the_stored_grid(model):
    assert model.vit.positions(3, 3).shape == (1, 9, 8)
    assert np.isfinite(tf.convert_to_tensor(model.vit.positions(4, 5))).all()
