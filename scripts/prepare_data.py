"""Prepares a data set: videos in, checked TFRecord files and dataset_info.json out.

    python scripts/prepare_data.py --dataset=video_folder --source_dir=my_videos --output_dir=data/mine --size=64
    python scripts/prepare_data.py --dataset=kth --source_dir=downloads/kth --output_dir=data/kth
    python scripts/prepare_data.py --dataset=breakout --output_dir=data/breakout
    python scripts/prepare_data.py --dataset=bair --verify --output_dir=data/bair

With --beam_options Apache Beam does the work, on this machine or a cluster (README.md, "More than one machine").
The same command goes on after an interruption. A video that cannot be read is skipped,
counted and named. `--verify` prepares nothing: it checks every record of a data set that
is there and names the broken file.
"""

from absl import flags

from tfvid import cli

cli.import_tensorflow_quietly()  # the flags below are those of modules that need it

from tfvid.data import preparation, records  # noqa: E402
from tfvid.data.prepare import prepare  # noqa: E402
from tfvid.data.source import open_source  # noqa: E402
from tfvid.data.verify import verify_source  # noqa: E402
from tfvid.errors import UserError  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, f"Data set to prepare: {', '.join(sorted(preparation.PREPARATIONS))}.")
flags.DEFINE_string("source_dir", None, "Folder with the videos; breakout and demo need none.")
flags.DEFINE_string("output_dir", None, "Folder to write, or to check; default data/<dataset>.")
flags.DEFINE_enum(
    "encoding", "auto", records.ENCODINGS,
    "How frames are kept. auto: as suits the data set; lossless: raw up to 64 pixels a side, PNG above.",
)  # fmt: skip
flags.DEFINE_integer("max_broken", 10, "Videos that may be unreadable before the preparation fails.", lower_bound=0)
flags.DEFINE_integer("processes", None, "Worker processes; default all cores; 0: none.", lower_bound=0)
flags.DEFINE_string(
    "beam_options", None,
    "Options of Apache Beam, which then does the work instead of --processes: --runner=NAME,--name=value (extra beam).",
)  # fmt: skip
flags.DEFINE_bool("overwrite", False, "Replace the data set in --output_dir; other files there are an error.")
flags.DEFINE_bool("verify", False, "Check the data set in --output_dir instead of preparing it.")


def define_options():
    """One flag for each option of any data set, with the default of each in its help."""
    users = {}
    for name in sorted(preparation.PREPARATIONS):
        for option, value in preparation.preparation_class(name).OPTIONS.items():
            users.setdefault(option, []).append((name, value))
    for option, uses in users.items():
        text = "; ".join(f"{name}: {value.doc} (default {value.default!r})" for name, value in uses)
        flags.DEFINE_string(option, None, text)
    return users


OPTIONS = define_options()


def main():
    if not FLAGS.dataset:
        raise UserError(f"--dataset: expected one of {', '.join(sorted(preparation.PREPARATIONS))}, received none")
    folder = FLAGS.output_dir or f"data/{FLAGS.dataset}"
    given = {name: FLAGS[name].value for name in OPTIONS if FLAGS[name].value is not None}
    if FLAGS.verify:
        report = verify_source(open_source(FLAGS.dataset, folder))
    else:
        if FLAGS.dataset not in preparation.PREPARATIONS:
            raise UserError(
                f"--dataset: expected one of {', '.join(sorted(preparation.PREPARATIONS))}. Received: {FLAGS.dataset!r}"
            )
        known = preparation.preparation_class(FLAGS.dataset).OPTIONS
        values = {k: preparation.parse_option(known[k], k, v) if k in known else v for k, v in given.items()}
        info = prepare(
            FLAGS.dataset, FLAGS.source_dir, folder, values, FLAGS.encoding, FLAGS.max_broken, FLAGS.processes,
            FLAGS.overwrite, beam_options=FLAGS.beam_options,
        )  # fmt: skip
        report = info.splits
        if info.broken:
            print(f"{folder}: left out {len(info.broken)} unreadable items; {records.INFO_FILE} names them")
    for split, entry in report.items():
        print(f"{folder}/{split}: {entry['clips']} clips, {entry['frames']} frames, every record checked")


if __name__ == "__main__":
    cli.run(main, may_be_empty=OPTIONS)
