"""Converts a published checkpoint to a run folder.

    python scripts/convert_checkpoint.py --model=savp --hparams=hparams/bair/savp.json \\
        --source=pretrained/bair_action_free/ours_savp --output_dir=runs/bair/savp_published

Then: generate.py, evaluate.py, export.py --checkpoint=runs/bair/savp_published, or
train.py --checkpoint=... to start a new training from it. Nothing in the file is executed,
and neither TensorFlow 1 nor PyTorch is needed. Every entry of the file is used or ignored
by rule, and every weight of the model is filled, or the command fails.
"""

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "name of the model, e.g. savp, sv2p, caddy", required=True)
flags.DEFINE_string("source", None, "checkpoint: prefix, file, or folder, as the original wrote it", required=True)
flags.DEFINE_string("output_dir", None, "run folder to write", required=True)
flags.DEFINE_string("hparams", None, "JSON file; default: model_hparams.json beside the source, if there is one")
flags.DEFINE_string("hparams_override", "", "name=value,name=[value,value]: over the file's")
flags.DEFINE_string("dataset", None, "data set that it was trained on; default: the hparams file's")
flags.DEFINE_string("input_dir", None, "folder of the data set, to read the data's shapes; default: data/<dataset>")
flags.DEFINE_list("image_size", None, "height,width,channels of the frames, in place of the data set's")
flags.DEFINE_integer("action_dim", None, "size of the actions, 0 for none, in place of the data set's", lower_bound=0)
flags.DEFINE_integer("state_dim", None, "size of the states, 0 for none, in place of the data set's", lower_bound=0)


def parse_image_size(values):
    """["64", "64", "3"] -> (64, 64, 3)."""
    if values is None:
        return None
    if len(values) != 3 or not all(v.strip().isdecimal() and int(v) for v in values):
        raise UserError(f"--image_size: expected height,width,channels, for example 64,64,3. Received: {','.join(values)!r}")
    return tuple(int(v) for v in values)


def main():
    from tfvid.conversion.convert import Request, convert

    path, report = convert(
        Request(
            model=FLAGS.model,
            source=FLAGS.source,
            output_dir=FLAGS.output_dir,
            hparams=FLAGS.hparams,
            hparams_override=FLAGS.hparams_override,
            dataset=FLAGS.dataset,
            input_dir=FLAGS.input_dir,
            image_size=parse_image_size(FLAGS.image_size),
            action_dim=FLAGS.action_dim,
            state_dim=FLAGS.state_dim,
        )
    )
    print(f"{path}: {report}")


if __name__ == "__main__":
    cli.run(main)
