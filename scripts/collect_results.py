"""Writes a table of measured results from summaries of evaluate, one section a data set.

    python scripts/collect_results.py --summary=RUN_A/evaluation/test/summary.json --summary=... --output=RESULTS.md

Only what was measured is filled in; published numbers stand in a column of their own with their source.
"""

from absl import flags

from tfvid import cli
from tfvid.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("summary", [], "summary.json of an evaluation")
flags.DEFINE_string("output", "RESULTS.md", "file to write")


def main():
    from tfvid.evaluation.results import write_results

    if not FLAGS.summary:
        raise UserError("--summary: expected the summary.json of an evaluation. Received: none")
    write_results(FLAGS.summary, FLAGS.output)
    print(f"results: {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
