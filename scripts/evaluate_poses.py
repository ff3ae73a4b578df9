"""Evaluates generated poses: joint error in pixels, PCK, diversity, control by the action.

    python scripts/evaluate_poses.py --checkpoint=RUN

RUN is a run of actvae. Beside the model stands what every model must beat: the source pose
repeated. The table is printed, and written with all figures to poses_<split>.json.
"""

import json
import os

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "run folder of actvae, or RUN/checkpoints/ckpt-<step>")
flags.DEFINE_string("input_dir", None, "folder of the data set; default: the one trained on")
flags.DEFINE_string("split", "test", "train, val or test")
flags.DEFINE_string("output", None, "JSON file to write; default: RUN/evaluation/poses_<split>.json")
flags.DEFINE_integer("num_samples", 50, "samples of each clip", lower_bound=1)
flags.DEFINE_integer("horizon", None, "poses to generate; default: as trained", lower_bound=1)
flags.DEFINE_integer("seed", 0, "seed of the samples")
flags.DEFINE_float(
    "distance", None, "also tell the error of independent noise of this average pairwise distance about the mean sample",
    lower_bound=0,
)


def main():
    import tensorflow as tf

    from tfvid.evaluation import runs
    from tfvid.models.actvae import evaluation

    if not FLAGS.checkpoint:
        raise UserError("--checkpoint: expected a run folder of actvae. Received: none")
    (trial,) = runs.open_trials([FLAGS.checkpoint])
    if trial.run.model_name != "actvae":
        raise UserError(f"--checkpoint: expected a run of actvae. Received: one of {trial.run.model_name}")
    source = runs.open_data([trial], FLAGS.input_dir)
    horizon = FLAGS.horizon or trial.run.hparams.horizon
    clips = evaluation.read_clips(source, FLAGS.split, trial.run.hparams, 1 + horizon)
    model = trial.run.load_model(trial.step, training_networks=False)
    result = evaluation.evaluate(model, clips, FLAGS.num_samples, horizon, FLAGS.seed, distance=FLAGS.distance)
    output = FLAGS.output or os.path.join(trial.run.path, "evaluation", f"poses_{FLAGS.split}.json")
    tf.io.gfile.makedirs(os.path.dirname(output) or ".")
    with tf.io.gfile.GFile(output, "w") as f:
        f.write(json.dumps(result, indent=2) + "\n")
    print(f"{trial.label} on {source.name}/{FLAGS.split}: {result['clips']} clips, {FLAGS.num_samples} samples each")
    print(evaluation.table(result))
    print(f"all figures: {output}")


if __name__ == "__main__":
    cli.run(main)
