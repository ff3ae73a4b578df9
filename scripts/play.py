"""Plays a model: you choose the action, it draws the next frame.

    python scripts/play.py --checkpoint=RUN                   a window; keys 1..9 act, 0 begins the next
                                                              game, r the same again, s saves, q quits
    python scripts/play.py --checkpoint=RUN --web             a page at http://localhost:8080/
    python scripts/play.py --checkpoint=RUN --script=1,1,2,3  no screen; writes videos

--checkpoint is a run folder, or one version of an export (export.py), which is played from
the SavedModel alone. Games start from the run's validation clips, from start.gif or
start.png beside the model, or from --start. What was played is written to
--output_dir/<n>: frames, video.gif, video.mp4, actions.mp4, timecoded.mp4, play.json.
"""

import os

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "run folder, or one version's folder of an export", required=True)
flags.DEFINE_string("script", None, "actions to play without a screen, as the keys, joined by commas: 1,1,2,3")
flags.DEFINE_bool("web", False, "serve a page instead of opening a window")
flags.DEFINE_string("host", "127.0.0.1", "address of the page; 0.0.0.0 lets others on the network play")
flags.DEFINE_integer("port", 8080, "port of the page; 0: a free one", lower_bound=0, upper_bound=65535)
flags.DEFINE_bool("open_browser", False, "show the page in the default browser, where there is a display")
flags.DEFINE_string("start", None, "image, video or folder of frames to start from")
flags.DEFINE_string("input_dir", None, "folder of the data set to start from; default: the one trained on")
flags.DEFINE_string("output_dir", "play_results", "folder for what was played")
flags.DEFINE_float("fps", 5.0, "frames per second of the videos", lower_bound=0.1, upper_bound=1000.0)
flags.DEFINE_integer("zoom", 0, "enlargement of the window; 0: as fits", lower_bound=0)


def load():
    """The player and its start frames, as the flags say."""
    from tfvid.serving import players

    player, starts = players.open_player(FLAGS.checkpoint)
    if FLAGS.start:
        starts = players.start_frames(FLAGS.start, player.size)
    elif starts is None:
        if not players.is_run(FLAGS.checkpoint):
            raise UserError("--start: a SavedModel needs an image, video or folder of frames to start from")
        starts = players.validation_starts(FLAGS.checkpoint, player.stacking, input_dir=FLAGS.input_dir)
    return player, starts


def main():
    if FLAGS.web and FLAGS.script:
        raise UserError("expected --web or --script, not both")
    from tfvid.serving import play

    player, starts = load()
    if FLAGS.web:
        from tfvid.serving.play_web import serve

        title = f"play {os.path.basename(os.path.normpath(FLAGS.checkpoint))}"
        serve(
            player, starts, FLAGS.output_dir, FLAGS.fps, FLAGS.host, FLAGS.port, title,
            lambda line: print(line, flush=True), FLAGS.open_browser,
        )
        return
    session = play.Session(player, starts)
    if FLAGS.script:
        actions = play.parse_script(FLAGS.script, player.actions_count)
        folders = play.run_script(session, actions, FLAGS.output_dir, FLAGS.fps)
    else:
        session.warm_up()
        folders = play.run_window(session, FLAGS.output_dir, FLAGS.fps, FLAGS.zoom)
    for folder in folders:
        print(folder)


if __name__ == "__main__":
    cli.run(main)
