"""Trains a model; the same command continues an interrupted run.

    python scripts/train.py --model=savp --hparams=hparams/bair/savp.json

The run folder (runs/<dataset>/<stem of the hparams file>) holds hparams.json, checkpoints/, train/ and val/ for
TensorBoard, metrics.csv and samples/. SIGTERM and SIGINT (Ctrl-C) save after the current step; a second signal ends
at once. Several machines: set TF_CONFIG on each and give the same command, with a run folder that all can reach.

Exit status: 0 finished, 1 a mistake in what was given or a failure, 2 flags that do not parse, 130 interrupted and
saved (Ctrl-C), 143 terminated and saved (SIGTERM).
"""

import dataclasses
import os
import sys
import typing

from absl import flags

from tfvid import cli
from tfvid.training.options import ENVIRONMENT, TrainOptions

os.environ.update({**ENVIRONMENT, **os.environ})  # before TensorFlow is imported


def define_flags():
    """One flag for each field of TrainOptions."""
    kinds = {str: "string", int: "integer", float: "float", bool: "bool"}
    types = typing.get_type_hints(TrainOptions)
    for field in dataclasses.fields(TrainOptions):
        kind = next(k for k in typing.get_args(types[field.name]) or [types[field.name]] if k in kinds)
        getattr(flags, f"DEFINE_{kinds[kind]}")(field.name, field.default, field.metadata["doc"])
    flags.mark_flag_as_required("model")


def main():
    from tfvid.training.loop import train

    options = {f.name: flags.FLAGS[f.name].value for f in dataclasses.fields(TrainOptions)}
    sys.exit(train(TrainOptions(**options)).exit_status)


define_flags()

if __name__ == "__main__":
    cli.run(main)
