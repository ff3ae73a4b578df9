"""Evaluates trained models: best, average and worst of many samples, for each step and metric.

    python scripts/evaluate.py --checkpoint=RUN
    python scripts/evaluate.py --checkpoint=RUN_A --checkpoint=RUN_B --output_dir=compare

Writes CSV tables in the layout of SAVP's evaluation, summary.json, plots and a page with
GIFs that play together; the baseline "repeat the last frame" stands beside every model.
Several --checkpoint are compared on the same clips. With --shard=i/n each of n processes
takes its part, and the last one to finish writes the result of all.
"""

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("checkpoint", [], "run folder, or RUN/checkpoints/ckpt-<step>; several: a comparison")
flags.DEFINE_string("input_dir", None, "folder of the data set; default: the one trained on")
flags.DEFINE_bool("skip_corrupt", False, "leave broken records out, counted and named, instead of failing")
flags.DEFINE_string("split", "test", "train, val or test")
flags.DEFINE_string("output_dir", None, "folder for the results; default: RUN/evaluation/<split>")
flags.DEFINE_integer("num_samples", 100, "samples of each clip")
flags.DEFINE_integer("num_videos", 0, "only the first so many clips; 0: all")
flags.DEFINE_integer("num_shown", 10, "clips whose images and GIFs are written")
flags.DEFINE_bool("only_metrics", False, "write no images and GIFs")
flags.DEFINE_list("metrics", [], "names, comma separated; default: those usual for the model; all: every one")
flags.DEFINE_integer("seed", 0, "seed of the samples")
flags.DEFINE_integer("batch_size", 8, "clips in a batch; it is part of what the samples depend on")
flags.DEFINE_integer("horizon", None, "frames to predict; default: those of a test clip")
flags.DEFINE_string("shard", "0/1", "i/n: this process takes every n-th batch from the i-th on")
flags.DEFINE_string("weights_dir", None, "folder of converted network weights; default: $TFVID_WEIGHTS or the cache")
flags.DEFINE_float("fps", 4.0, "frames per second of the GIFs")


def main():
    from tfvid.evaluation.evaluate import Request, evaluate
    from tfvid.evaluation.runs import default_folder, parse_shard

    if not FLAGS.checkpoint:
        raise UserError("--checkpoint: expected a run folder (python scripts/train.py makes one). Received: none")
    if len(FLAGS.checkpoint) > 1 and not FLAGS.output_dir:
        raise UserError("--output_dir: expected a folder for the comparison. Received: none")
    request = Request(
        split=FLAGS.split,
        num_samples=FLAGS.num_samples,
        num_videos=FLAGS.num_videos,
        num_shown=FLAGS.num_shown,
        metrics=tuple(FLAGS.metrics),
        seed=FLAGS.seed,
        batch_size=FLAGS.batch_size,
        horizon=FLAGS.horizon,
        shard=parse_shard(FLAGS.shard),
        only_metrics=FLAGS.only_metrics,
        weights_dir=FLAGS.weights_dir,
        fps=FLAGS.fps,
    )
    output_dir = FLAGS.output_dir or default_folder(FLAGS.checkpoint[0], "evaluation", FLAGS.split)
    evaluate(FLAGS.checkpoint, output_dir, request, FLAGS.input_dir, skip_corrupt=FLAGS.skip_corrupt)


if __name__ == "__main__":
    cli.run(main)
