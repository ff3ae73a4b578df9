"""What each learnt action does to Breakout's paddle.

    python examples/caddy/movements.py --checkpoint=data/pretrained/breakout-caddy

Games start from frames of test clips; in each, one action is pressed again and again, and the
paddle is looked for in every generated frame. Also printed: how much of the recorded movements
the player's true actions leave open (delta-MSE), which no learnt action can be far below.
"""

from absl import flags

from tfvid import cli

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "run folder of caddy on the data set breakout", required=True)
flags.DEFINE_string("input_dir", None, "folder of the data set; default: the one trained on")
flags.DEFINE_integer("games", 64, "of each action", lower_bound=1)
flags.DEFINE_integer("presses", 10, "of each game", lower_bound=2)

STILL = 0.7  # pixels a press below which the paddle counts as standing


def main():
    import numpy as np
    import tensorflow as tf

    from tfvid.errors import UserError
    from tfvid.evaluation import runs
    from tfvid.metrics import actions
    from tfvid.metrics.detection import paddle_positions

    (trial,) = runs.open_trials([FLAGS.checkpoint])
    source = runs.open_data([trial], FLAGS.input_dir)
    if trial.run.model_name != "caddy" or source.name != "breakout":
        raise UserError(
            f"--checkpoint: expected a run of caddy on breakout. Received: {trial.run.model_name} on {source.name}"
        )
    model = trial.run.load_model(trial.step)
    hparams = trial.run.hparams.replace(use_state=True)  # where the paddle is, whether or not the run read it
    clips = next(iter(source.evaluation_batches("test", hparams, FLAGS.games, length=16, limit=FLAGS.games)))
    clips = {k: v.numpy()[clips["valid"].numpy()] for k, v in clips.items()}
    start = model.start(tf.constant(clips["images"][:, 3:4]))
    first = paddle_positions(clips["images"][:, 3], True)
    for action in range(hparams.actions_count):
        state, positions = start, [first]
        for _ in range(FLAGS.presses):
            frame, state = model.play(state, tf.fill([len(first)], action))
            positions.append(paddle_positions(frame.numpy(), True))
        # The first press is left out: the model's memory is empty then.
        moves = np.diff(np.array(positions, np.float64), axis=0)[1:]
        shares = [np.mean(moves < -STILL), np.mean(np.abs(moves) <= STILL), np.mean(moves > STILL)]
        tenth, middle, last = np.percentile(moves, [10, 50, 90])
        print(
            f"key {action + 1}: left {shares[0]:.0%}, still {shares[1]:.0%}, right {shares[2]:.0%} of the presses;"
            f" 10th, 50th and 90th percentile {tenth:.1f}, {middle:.1f}, {last:.1f} pixels"
        )
    movements = np.diff(clips["states"][..., :1], axis=1).reshape(-1, 1)
    left = float(actions.delta_mse(movements, clips["action_labels"].reshape(-1)))
    print(f"delta-MSE of the true actions: {left:.1%}")


if __name__ == "__main__":
    cli.run(main)
