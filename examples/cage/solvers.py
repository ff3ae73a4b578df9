"""The ODE solvers of a run of CAGE: evaluations of the vector field, seconds a frame, error.

    python examples/cage/solvers.py --checkpoint=RUN

One chunk of frames after the first one of each test clip, from the same noise. The error is
the root mean square difference of frames in [0, 1] from those of rk4 with 32 steps. Noise is
all the context that a first chunk has, so that the flow is one and the same for all.
"""

from absl import flags

from tfvid import cli

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "run folder of cage", required=True)
flags.DEFINE_string("input_dir", None, "folder of the data set; default: the one trained on")
flags.DEFINE_integer("clips", 8, "test clips", lower_bound=1)
flags.DEFINE_integer("seed", 0, "of the noise")


def main():
    from tfvid.benchmarking import solvers
    from tfvid.evaluation import runs
    from tfvid.evaluation.compositions import open_model

    trial, model = open_model(FLAGS.checkpoint)
    source = runs.open_data([trial], FLAGS.input_dir)
    batch = next(iter(source.evaluation_batches("test", trial.run.hparams, FLAGS.clips, length=1)))
    frames = model.signed(batch["images"][batch["valid"]])  # a last batch is padded
    print(solvers.table(solvers.compare(model, frames, FLAGS.seed)))


if __name__ == "__main__":
    cli.run(main)
