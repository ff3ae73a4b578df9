"""Makes a request for an exported model from a clip of a data set, and sends it to TensorFlow Serving.

    python scripts/request.py --export_dir=exported/savp --output=request.json
    python scripts/request.py --export_dir=exported/savp --url=http://localhost:8501/v1/models/savp:predict \\
        --output=answer.gif

Without --url the request's JSON body is written, for curl -d @request.json, or its inputs as .npz, for
examples/serving/client.py; with --url the answer is written as a GIF.
The inputs are checked against the exported signature first.
"""

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "folder that scripts/export.py wrote", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "file to write: .json or .npz, or .gif with --url", required=True)
_URL = flags.DEFINE_string("url", None, "address of the model, .../v1/models/NAME:predict")
_DATASET = flags.DEFINE_string("dataset", None, "data set of the clip; default: the one trained on")
_INPUT_DIR = flags.DEFINE_string("input_dir", None, "its folder; default: data/<dataset>")
_SPLIT = flags.DEFINE_string("split", "test", "train, val or test")
_CLIP = flags.DEFINE_integer("clip", 0, "number of the clip", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the sample")
_ACTIONS = flags.DEFINE_list("actions", None, "of caddy: an action for each new frame, as in 1,0,2")
_SIGNATURE = flags.DEFINE_string("signature", "serving_default", "signature to call")
_FPS = flags.DEFINE_float("fps", 4.0, "frames per second of the GIF", lower_bound=0.1, upper_bound=1000.0)


def main():
    from tfvid.serving import request

    folder = request.version_folder(_EXPORT_DIR.value)
    inputs = request.inputs_for(folder, clip(folder), _SEED.value, _SIGNATURE.value, given())
    if _OUTPUT.value.endswith(".npz"):
        import numpy as np

        np.savez_compressed(_OUTPUT.value, **inputs)
        print(f"{_OUTPUT.value}: {', '.join(f'{k} {list(np.shape(v))}' for k, v in inputs.items())}")
        return
    text = request.body(inputs, _SIGNATURE.value)
    if not _URL.value:
        with open(_OUTPUT.value, "w") as f:
            f.write(text)
        print(f"{_OUTPUT.value}: send it with curl -d @{_OUTPUT.value} http://localhost:8501/v1/models/NAME:predict")
        return
    import numpy as np

    from tfvid.data.video_files import write_gif

    images = request.send(_URL.value, text)["images"][0]
    write_gif(_OUTPUT.value, np.clip(np.round(images * 255), 0, 255).astype("uint8"), _FPS.value)
    print(f"{_OUTPUT.value}: {len(images)} frames")


def given():
    """{input: value} of the flags."""
    if _ACTIONS.value is None:
        return {}
    if not all(a.strip().isdecimal() for a in _ACTIONS.value):
        raise UserError(f"--actions: expected integers, as in 1,0,2. Received: {','.join(_ACTIONS.value)!r}")
    return {"actions": [[int(a) for a in _ACTIONS.value]]}


def clip(folder):
    """{key: array} of one clip, batch 1, of the data that the model was trained on."""
    from tfvid import models
    from tfvid.data.source import open_source
    from tfvid.serving.saved_model import read_description

    described = read_description(folder)
    hparams = models.model_class(described["model"]).HPARAMS.from_dict(described["hparams"], folder)
    dataset = _DATASET.value or hparams.dataset
    if not dataset:
        raise UserError("--dataset: expected a name, since the exported model has none")
    source = open_source(dataset, _INPUT_DIR.value)
    length = hparams.long_sequence_length or hparams.sequence_length
    batches = source.evaluation_batches(_SPLIT.value, hparams, 1, length=length, limit=_CLIP.value + 1)
    chosen = None
    for number, batch in enumerate(batches.as_numpy_iterator()):
        chosen = batch if number == _CLIP.value else None
    if chosen is None:
        raise UserError(f"--clip: expected a number below {source.count(_SPLIT.value)}. Received: {_CLIP.value}")
    return chosen


if __name__ == "__main__":
    cli.run(main)
