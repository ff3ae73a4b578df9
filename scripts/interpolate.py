"""Moves between two of a model's actions: one row of frames for each mixture, as a GIF.

    python scripts/interpolate.py --checkpoint=RUN --first=1 --second=3

Every mixture starts from the same frame and is played for --steps steps. Its action is the
nearer of the two, its variation what leads from that action's centroid to the mixture's.
Written to --output_dir: interpolation.gif (one row a mixture), <mixture>/00000.png ...
"""


from absl import flags

from tfvid import cli
from tfvid.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "run folder of a trained model", required=True)
flags.DEFINE_integer("first", None, "action at the start, as the keys of play.py: from 1", required=True)
flags.DEFINE_integer("second", None, "action at the end", required=True)
flags.DEFINE_integer("mixtures", 11, "mixtures, both actions themselves included", lower_bound=2)
flags.DEFINE_integer("steps", 10, "steps that each is played for", lower_bound=1)
flags.DEFINE_string("start", None, "image, video or folder of frames to start from; default: a validation clip")
flags.DEFINE_string("input_dir", None, "folder of the data set to start from; default: the one trained on")
flags.DEFINE_string("output_dir", "interpolation_results", "folder for the results")
flags.DEFINE_float("fps", 5.0, "frames per second of the GIF", lower_bound=0.1, upper_bound=1000.0)


def main():
    import numpy as np

    from tfvid.serving import play, players
    from tfvid.training.run_folder import RunFolder

    model = RunFolder.open(FLAGS.checkpoint).load_model(training_networks=False)
    player = players.player_of(model)
    for name in ("first", "second"):
        if not 1 <= FLAGS[name].value <= player.actions_count:
            raise UserError(f"--{name}: expected 1 to {player.actions_count}. Received: {FLAGS[name].value}")
    if FLAGS.start:
        starts = players.start_frames(FLAGS.start, player.size)
    else:
        starts = players.beside(FLAGS.checkpoint)
        if starts is None:
            starts = players.validation_starts(FLAGS.checkpoint, player.stacking, 1, FLAGS.input_dir)
    session = play.Session(player, starts)
    factors = np.linspace(0, 1, FLAGS.mixtures)
    rows = play.interpolate(session, model.networks, FLAGS.first - 1, FLAGS.second - 1, factors, FLAGS.steps)
    print(play.save_interpolation(rows, factors, FLAGS.output_dir, FLAGS.fps))


if __name__ == "__main__":
    cli.run(main)
