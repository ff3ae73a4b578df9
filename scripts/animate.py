"""Makes a video of a person who performs an action, from one image, a pose and the action's class.

    python scripts/animate.py --checkpoint=RUN --image=me.jpg --pose=me.json --action=7 --output=me.gif
    python scripts/animate.py --checkpoint=RUN --clip=3 --output=clip.mp4     the first frame of a test clip

RUN is a run of actvae_p2i, which makes frames, or of actvae, which makes pictures of poses
and needs no image. Samples stand side by side; pictures of the poses over time and the
poses themselves are written beside the video.
"""

import json
import re

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "run folder of actvae_p2i or actvae")
flags.DEFINE_string("image", None, "picture of the person")
flags.DEFINE_string("pose", None, "JSON list of [x, y] in pixels of the picture, one for each joint")
flags.DEFINE_string("action", None, "class: its number, or its name where the data set is there")
flags.DEFINE_list("crop", None, "x1,y1,x2,y2 of the picture to use; default: all of it")
flags.DEFINE_integer("frame_step", 1, "video frames between two poses, for a model that is told it", lower_bound=1)
flags.DEFINE_integer("clip", None, "instead of files: number of a clip of the data set")
flags.DEFINE_string("split", "test", "of the data set: train, val or test")
flags.DEFINE_string("input_dir", None, "folder of the data set; default: the one trained on")
flags.DEFINE_integer("num_samples", 4, "samples side by side", lower_bound=1)
flags.DEFINE_integer("horizon", None, "poses to generate; default: as trained, any number works", lower_bound=1)
flags.DEFINE_integer("seed", 0, "seed of the samples")
flags.DEFINE_float("fps", 4.0, "frames per second", lower_bound=0.1, upper_bound=1000.0)
flags.DEFINE_string("output", "animation.gif", "video to write, .gif or .mp4")


def action_number(text, trial):
    """"7" or "squat" -> 7."""
    from tfvid.evaluation import runs

    if text is None:
        raise UserError("--action: expected the number or the name of a class. Received: none")
    if text.isdecimal():
        return int(text)
    source = runs.open_data([trial], FLAGS.input_dir)
    names = source.info.labels.get("action_class", []) if source.info else []
    if text not in names:
        raise UserError(f"--action: expected a number or one of {', '.join(names)}. Received: {text!r}")
    return names.index(text)


def crop_box(values):
    """["1", "2", "30", "40"] -> (1, 2, 30, 40)."""
    if values is None:
        return None
    if len(values) != 4 or not all(re.fullmatch(r"\s*-?\d+\s*", v) for v in values):
        raise UserError(f"--crop: expected x1,y1,x2,y2 in pixels. Received: {','.join(values)!r}")
    return tuple(int(v) for v in values)


def main():
    from tfvid.evaluation import pose_videos, runs

    if not FLAGS.checkpoint:
        raise UserError("--checkpoint: expected a run folder of actvae_p2i or actvae. Received: none")
    if (FLAGS.clip is None) == (FLAGS.pose is None):
        raise UserError("expected either --pose (with --action and --image) or --clip, a clip of the data set")
    (trial,) = runs.open_trials([FLAGS.checkpoint])
    if trial.run.model_name not in ("actvae", "actvae_p2i"):
        raise UserError(f"--checkpoint: expected a run of actvae_p2i or actvae. Received: one of {trial.run.model_name}")
    action = action_number(FLAGS.action, trial) if FLAGS.clip is None else None
    model = trial.run.load_model(trial.step, training_networks=False)
    if FLAGS.clip is None:
        person = pose_videos.read_person(
            model, FLAGS.pose, action, FLAGS.image, crop_box(FLAGS.crop), FLAGS.frame_step
        )
    else:
        person = pose_videos.person_of_clip(model, runs.open_data([trial], FLAGS.input_dir), FLAGS.split, FLAGS.clip)
    paths = pose_videos.write_video(
        model, person, FLAGS.output, FLAGS.num_samples, FLAGS.horizon, FLAGS.seed, FLAGS.fps
    )
    print(json.dumps({"video": paths[0], "pose_pictures": paths[1], "poses": paths[2]}))


if __name__ == "__main__":
    cli.run(main)
