"""Displacement asked for against displacement obtained, for runs of CAGE on the demo data.

    python examples/cage/displacement.py --checkpoint=RUN [--checkpoint=ANOTHER_RUN] --output_dir=DIR

In the first frame of test clips, the tiles of the square are chosen and placed somewhere
else in the next frames, further by `step` tiles in each. Where the square is in the last
generated frame is measured by its colour. Beside it stands what the same run generates
from the same noise without controls: where the square goes by itself. Writes
displacement.json and displacement.png.
"""

import json
import os

from absl import flags

from tfvid import cli

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("checkpoint", None, "run folders of cage", required=True)
flags.DEFINE_integer("clips", 16, "test clips", lower_bound=1)
flags.DEFINE_integer("seed", 0, "of the samples")
flags.DEFINE_string("output_dir", "displacement", "folder to write")


def main():
    from tfvid.evaluation import displacement

    results = {}
    for path in FLAGS.checkpoint:
        for name, result in displacement.measure(path, FLAGS.clips, FLAGS.seed).items():
            results[f"{path}, {name}"] = result
    os.makedirs(FLAGS.output_dir, exist_ok=True)
    with open(os.path.join(FLAGS.output_dir, "displacement.json"), "w") as f:
        json.dump(results, f, indent=1)
    displacement.plot(results, os.path.join(FLAGS.output_dir, "displacement.png"))
    for path, result in results.items():
        print(f"{path}: slope {result['slope']:.2f}, correlation {result['correlation']:.2f},"
              f" mean error {result['error']:.1f} pixels over {len(result['asked'])} clips")  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
