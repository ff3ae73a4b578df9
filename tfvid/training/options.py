"""What the train command can be told: one field for each flag, checked before anything is started."""

import dataclasses
import os
import re

from tfvid.errors import UserError

# What TensorFlow finds in the environment of a process that trains, unless it is set there. It reads this on import.
# TensorFlow's own choice without AVX-512 is no oneDNN, and repeatable 3-D convolutions are then twenty times slower.
ENVIRONMENT = {"TF_ENABLE_ONEDNN_OPTS": "1"}


def option(default, doc, low=None):
    """A field with its help text and, for a number, the smallest value."""
    return dataclasses.field(default=default, metadata={"doc": doc, "low": low})


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The flags of scripts/train.py."""

    model: str = option(None, "name of the model: savp, sna, sv2p, caddy, ... (an unknown name lists all)")
    hparams: str | None = option(None, "JSON file with the hyper-parameters that differ from the model's defaults")
    dataset: str | None = option(
        None, "data set; default: the hparams file's key dataset, else its folder in hparams/<dataset>/"
    )
    input_dir: str | None = option(None, "folder of the data set's records; default: data/<dataset>")
    skip_corrupt: bool = option(
        False, "leave broken records out, counted and named, instead of failing; reads the whole data set first"
    )
    output_dir: str | None = option(None, "run folder; default: runs/<dataset>/<stem of the hparams file>")
    hparams_override: str = option("", "hyper-parameters that win over the file: a=1,b=[2,3],c=name")
    max_steps: int | None = option(None, "steps of the whole run, instead of the hyper-parameter max_steps", low=0)
    seed: int = option(0, "seed of the initial weights, the noise and the order of the data", low=0)
    checkpoint: str | None = option(None, "run folder or checkpoint whose weights a new run starts from")
    pose_checkpoint: str | None = option(None, "of actvae_p2i: run folder of the actvae that generates the poses")
    autoencoder_checkpoint: str | None = option(
        None, "of cage: run folder of the cage_autoencoder whose latents are generated"
    )
    strategy: str = option(
        "auto",
        "one: one device; mirrored: all devices of this machine; multi_worker: the machines of TF_CONFIG; auto:"
        " multi_worker where TF_CONFIG is set, mirrored where there are several devices, else one",
    )
    cpu_devices: int = option(1, "logical devices of the CPU, to try several without accelerators", low=1)
    deterministic: bool = option(
        True, "the same bits each time the same command runs; --nodeterministic may be faster on a GPU"
    )
    worker_timeout: float = option(300.0, "seconds to wait for all workers of TF_CONFIG", low=0)
    summary_freq: int = option(100, "steps between two entries of the losses in TensorBoard", low=1)
    image_summary_freq: int = option(1000, "steps between two sets of GIFs and plots; 0: none", low=0)
    validation_freq: int = option(1000, "steps between two validations; 0: none", low=0)
    validation_clips: int = option(64, "clips of a validation", low=1)
    sample_clips: int = option(4, "validation clips that GIFs are made of", low=1)
    num_samples: int = option(8, "samples of each of these clips; the best, an average and the worst are shown", low=1)
    save_freq: int = option(1000, "steps between two checkpoints", low=1)
    keep: int = option(3, "checkpoints that are kept", low=1)
    profile: str = option("", "first,last: steps whose profile is recorded for TensorBoard, as in 10,20")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, low = getattr(self, field.name), field.metadata["low"]
            if low is not None and value is not None and not value >= low:
                raise UserError(f"--{field.name}: expected a value >= {low}. Received: {value}")
        if not self.model:
            raise UserError("--model: expected the name of a model. Received: none")
        if self.seed >= 2**63:
            raise UserError(f"--seed: expected a value below 2^63. Received: {self.seed}")
        self.profiled_steps()

    def profiled_steps(self):
        """(first, last) step of --profile, or None."""
        if not self.profile:
            return None
        match = re.fullmatch(r"(\d+)(?:,(\d+))?", self.profile)
        steps = tuple(int(g) for g in match.groups(match.group(1))) if match else ()
        if not match or not 1 <= steps[0] <= steps[1]:
            raise UserError(f"--profile: expected first,last step, as in 10,20. Received: {self.profile!r}")
        return steps

    def dataset_of(self, hparams):
        """Name of the data set: the flag, else the file's key, else <dataset> of hparams/<dataset>/<file>."""
        parts = os.path.normpath(self.hparams).split(os.sep) if self.hparams else []
        folder = parts[-2] if len(parts) > 2 and parts[-3] == "hparams" else None
        name = self.dataset or hparams.dataset or folder
        if not name:
            raise UserError(
                f"--dataset: expected the name of a data set, since {self.hparams or 'no --hparams file'} names none."
                " Received: none"
            )
        return name

    def run_path(self, dataset):
        """The run folder: --output_dir, or runs/<dataset>/<stem of the hparams file>."""
        if self.output_dir:
            return self.output_dir
        stem = os.path.splitext(os.path.basename(self.hparams))[0] if self.hparams else self.model
        return os.path.join("runs", dataset, stem)
