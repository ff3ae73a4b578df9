"""From a published checkpoint to a run folder that generate, evaluate and export take."""

import dataclasses
import importlib
import os

import tensorflow as tf

from tfvid import models
from tfvid.conversion import torch_file
from tfvid.conversion.assign import assign
from tfvid.conversion.data_spec import published_defaults, published_spec
from tfvid.errors import UserError
from tfvid.hparams import HParams, read_json_object

# Model -> module with the functions described in `tfvid.conversion`.
CONVERTERS = {
    "savp": "tfvid.models.savp.convert",
    "sna": "tfvid.models.baselines.convert",
    "sv2p": "tfvid.models.baselines.convert",
    "dna": "tfvid.models.baselines.convert",
    "caddy": "tfvid.models.caddy.convert",
    "actvae": "tfvid.models.actvae.convert",
    "actvae_p2i": "tfvid.models.actvae.convert_p2i",
    "ag2vid": "tfvid.models.ag2vid.convert",
    "cage": "tfvid.models.cage.convert",
    "cage_autoencoder": "tfvid.models.cage.convert_autoencoder",
}


@dataclasses.dataclass(frozen=True)
class Request:
    """What the command was given; see scripts/convert_checkpoint.py."""

    model: str
    source: str
    output_dir: str
    hparams: str | None = None
    hparams_override: str = ""
    dataset: str | None = None
    input_dir: str | None = None
    image_size: tuple | None = None
    action_dim: int | None = None
    state_dim: int | None = None


def convert(request):
    """Writes the run folder; nothing is written unless everything fits.

    Returns:
      (path of the checkpoint written, `tfvid.conversion.assign.Report`).

    Raises:
      UserError: flags, hyper-parameters, source or output folder are not as they must be.
    """
    converter = _converter(request.model)
    if tf.io.gfile.exists(request.output_dir) and tf.io.gfile.listdir(request.output_dir):
        raise UserError(
            f"--output_dir: expected a new or empty folder. Received: {request.output_dir!r}, which has files"
        )
    hparams, spec = _data(request, converter, _hparams(request))
    tensors = getattr(converter, "read_source", _read_torch)(request.source)
    model = models.build(request.model, hparams, spec)
    report = assign(
        model, tensors, converter.variable_map(model), converter.is_ignorable,
        getattr(converter, "is_optional", lambda path: False), request.source,
    )  # fmt: skip
    model.step.assign(_step(tensors))
    return _write(request, model, hparams, spec), report


def _converter(model):
    models.model_class(model)
    if model not in CONVERTERS:
        raise UserError(f"--model: expected one with weights: {', '.join(CONVERTERS)}. Received: {model!r}")
    return importlib.import_module(CONVERTERS[model])


def _hparams(request):
    """The merged hyper-parameters: those of --hparams, then what the original wrote beside the checkpoint."""
    folder = request.source if tf.io.gfile.isdir(request.source) else os.path.dirname(request.source)
    beside = {name: os.path.join(folder, f"{name}.json") for name in ("model_hparams", "dataset_hparams", "options")}
    beside = {name: path for name, path in beside.items() if tf.io.gfile.exists(path)}
    extra = {"dataset": request.dataset} if request.dataset else None
    hparams_class = models.model_class(request.model).HPARAMS
    hparams = hparams_class.load(request.hparams or beside.get("model_hparams"), request.hparams_override, extra)
    if "model_hparams" not in beside:
        return hparams  # files of these names that are not the original's
    data = read_json_object(beside["dataset_hparams"]) if "dataset_hparams" in beside else {}
    if "options" in beside:
        data["dataset"] = read_json_object(beside["options"]).get("dataset")
    shared = {f.name for f in dataclasses.fields(HParams)}
    return hparams.with_dataset_defaults({k: v for k, v in data.items() if k in shared and v is not None})


def _data(request, converter, hparams):
    """(hyper-parameters with the data set's defaults, spec of its clips)."""
    from tfvid.data import source as source_lib

    sizes = (request.image_size, request.action_dim, request.state_dim)
    folder = request.input_dir or (os.path.join("data", hparams.dataset) if hparams.dataset else None)
    there = folder is not None and tf.io.gfile.isdir(folder)
    if request.input_dir or (there and sizes == (None, None, None)):
        if not hparams.dataset:
            raise UserError("--dataset: expected the name of the data set in --input_dir. Received: none")
        source = source_lib.open_source(hparams.dataset, folder)
        hparams = hparams.with_dataset_defaults(source.defaults())
        return hparams, source.spec(hparams)
    hparams = hparams.with_dataset_defaults(published_defaults(hparams.dataset))
    own = getattr(converter, "data_spec", None)
    if own is not None and sizes == (None, None, None):
        return hparams, own(hparams)
    for key in ("context_frames", "sequence_length"):
        if not getattr(hparams, key):
            raise UserError(
                f"{key}: expected a value in --hparams or --hparams_override={key}=N, or a known --dataset. Received: none"
            )
    spec = published_spec(hparams, *sizes)
    if own is not None and any(k not in spec for k in models.model_class(request.model).REQUIRED_KEYS):
        spec = own(hparams) | spec  # the model sees more than frames, actions and states
    return hparams, spec


def _read_torch(path):
    """{name: array} of a PyTorch file, names of nested dictionaries joined with dots."""
    return torch_file.flatten(torch_file.read(path))


def _step(tensors):
    """The step count of the file, where it has one."""
    for name in ("global_step", "step"):
        value = tensors.get(name)
        if value is not None and getattr(value, "size", 0) == 1:
            return int(value)
    return 0


def _write(request, model, hparams, spec):
    from tfvid.training.run_folder import RunFolder

    known = {"dataset": hparams.dataset} if hparams.dataset else {}
    run = RunFolder.create(
        request.output_dir, request.model, hparams, spec, seed=0, **known, converted_from=request.source
    )
    return run.save_weights(model)
