"""Generates futures for clips of a data set: GIFs, PNG frames and a page to look at them.

    python scripts/generate.py --checkpoint=RUN

For each clip: every sample as a GIF (given frames, then predicted ones) and its predicted
frames as PNG files, named as SAVP's generate.py names them, and one GIF with the truth and
all samples side by side. The same seed gives the same files.

    python scripts/generate.py --checkpoint=RUN --controls=FILE

is for runs of cage: FILE says which tiles of which images are placed where over time; --web
in its place opens a page to select tiles and drag them.

    python scripts/generate.py --checkpoint=RUN --graph=FILE --image=FRAME

is for runs of ag2vid: FILE holds objects, their boxes in FRAME, and which actions happen when.
"""

import os

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "run folder, or RUN/checkpoints/ckpt-<step>")
flags.DEFINE_string("input_dir", None, "folder of the data set; default: the one trained on")
flags.DEFINE_bool("skip_corrupt", False, "leave broken records out, counted and named, instead of failing")
flags.DEFINE_string("split", "test", "train, val or test")
flags.DEFINE_string("output_dir", None, "folder for the results; default: RUN/generated/<split>")
flags.DEFINE_integer("num_samples", 5, "samples of each clip")
flags.DEFINE_integer("num_videos", 8, "clips; 0: all")
flags.DEFINE_integer("seed", 7, "seed of the samples")
flags.DEFINE_integer("batch_size", 8, "clips in a batch; it is part of what the samples depend on")
flags.DEFINE_integer("horizon", None, "frames to predict; default: those of a test clip")
flags.DEFINE_string("controls", None, "of cage: JSON file of what to place where (tfvid/models/cage/control_file.py)")
flags.DEFINE_string("graph", None, "of ag2vid: JSON file of objects and actions (tfvid/models/ag2vid/action_graph.py)")
flags.DEFINE_integer("clip", None, "with --graph: take the first frame of this clip of the data set instead")
flags.DEFINE_bool("web", False, "of cage: serve a page to select tiles and drag them over time")
flags.DEFINE_multi_string(
    "image", [], "of --web: image files to take tiles of; default: frames of test clips; with --graph: the first frame"
)
flags.DEFINE_string("host", "127.0.0.1", "of --web: address; 0.0.0.0 lets others on the network compose")
flags.DEFINE_integer("port", 8080, "of --web", lower_bound=0, upper_bound=65535)
flags.DEFINE_float("fps", 4.0, "frames per second of the GIFs")
flags.DEFINE_string("shard", "0/1", "i/n: this process takes every n-th batch from the i-th on; the last one writes the page")


def main():
    from tfvid.evaluation.generation import Request, generate
    from tfvid.evaluation.runs import default_folder, parse_shard

    if not FLAGS.checkpoint:
        raise UserError("--checkpoint: expected a run folder (python scripts/train.py makes one). Received: none")
    chosen = [f"--{name}" for name in ("controls", "graph", "web") if FLAGS[name].value]
    if len(chosen) > 1:
        raise UserError(f"expected one of --controls, --graph and --web. Received: {' and '.join(chosen)}")
    if FLAGS.clip is not None and not FLAGS.graph:
        raise UserError(f"--clip: expected with --graph only. Received: --clip={FLAGS.clip} without --graph")
    if FLAGS.image and not (FLAGS.graph or FLAGS.web):
        raise UserError(f"--image: expected with --graph or --web. Received: {', '.join(FLAGS.image)} without either")
    if FLAGS.web:
        from tfvid.serving.compose_web import serve

        serve(FLAGS.checkpoint, FLAGS.image, FLAGS.input_dir, FLAGS.host, FLAGS.port)
        return
    if FLAGS.controls:
        from tfvid.evaluation.compositions import compose_file

        stem = os.path.splitext(os.path.basename(FLAGS.controls))[0]
        output_dir = FLAGS.output_dir or default_folder(FLAGS.checkpoint, "generated", stem)
        compose_file(FLAGS.checkpoint, FLAGS.controls, output_dir, FLAGS.input_dir)
        return
    if FLAGS.graph:
        from tfvid.evaluation import action_graphs

        stem = os.path.splitext(os.path.basename(FLAGS.graph))[0]
        output_dir = FLAGS.output_dir or default_folder(FLAGS.checkpoint, "generated", stem)
        if len(FLAGS.image) > 1:
            raise UserError(f"--image: expected one with --graph. Received: {', '.join(FLAGS.image)}")
        image = FLAGS.image[0] if FLAGS.image else None
        wanted = action_graphs.Request(FLAGS.graph, image, FLAGS.clip, FLAGS.split, FLAGS.fps)
        action_graphs.compose_graph(FLAGS.checkpoint, wanted, output_dir, FLAGS.input_dir)
        return
    request = Request(
        split=FLAGS.split,
        num_samples=FLAGS.num_samples,
        num_videos=FLAGS.num_videos,
        seed=FLAGS.seed,
        batch_size=FLAGS.batch_size,
        horizon=FLAGS.horizon,
        fps=FLAGS.fps,
        shard=parse_shard(FLAGS.shard),
    )
    output_dir = FLAGS.output_dir or default_folder(FLAGS.checkpoint, "generated", FLAGS.split)
    generate(FLAGS.checkpoint, output_dir, request, FLAGS.input_dir, skip_corrupt=FLAGS.skip_corrupt)


if __name__ == "__main__":
    cli.run(main)
