"""RESULTS.md: measured numbers of several evaluations, published ones beside them."""

from tfvid.data.records import write_atomically
from tfvid.errors import UserError
from tfvid.evaluation import tables
from tfvid.evaluation.reports import BASELINE
from tfvid.hparams import read_json_object

# (data set, model, metric) -> (value, source). Only what a source was read for.
PUBLISHED = {
    ("bair", "savp", "fvd"): (116.4, "VideoGPT, table 1"),
    ("bair", "sv2p", "fvd"): (262.5, "VideoGPT, table 1"),
}
HEADER = ["run", "model", "metric", "better", "best", "average", "worst", BASELINE, "published", "clips", "samples"]


def write_results(summaries, path):
    """Writes one section for each data set.

    Args:
      summaries: paths of summary.json files.
      path: of the Markdown file.

    Raises:
      UserError: a file is none of evaluate's.
    """
    by_dataset = {}
    for name in summaries:
        summary = read_json_object(name)
        missing = [k for k in ("label", "protocol", "metrics", "sets") if k not in summary]
        if missing:
            raise UserError(f"{name}: expected what scripts/evaluate.py writes, missing {', '.join(missing)}")
        by_dataset.setdefault(summary["protocol"]["dataset"], []).append(summary)
    parts = [
        "# Results\n\nMeasured by `scripts/evaluate.py`: mean ± standard error over the clips. Best and worst: of the"
        " samples of each clip, by that metric. Published numbers are of the papers' own protocols, which may differ.\n"
    ]
    for dataset, found in sorted(by_dataset.items()):
        rows = [row for summary in found for row in _rows(dataset, summary)]
        protocols = "\n".join(f"- {_protocol(s)}" for s in found)
        parts.append(f"## {dataset}\n\n{tables.markdown_table(HEADER, rows)}\n{protocols}\n")
    write_atomically(path, "\n".join(parts))


def _rows(dataset, summary):
    protocol = summary["protocol"]
    ends = [str(protocol["clips"]), "1" if protocol["deterministic"] else str(protocol["samples"])]
    for name, metric in summary["metrics"].items():
        values = [tables.format_value(metric[k]) for k in ("best", "average", "worst", "repeat")]
        yield [*_head(summary, name, metric), *values, _published(dataset, protocol["model"], name), *ends]
    for name, metric in summary["sets"].items():
        value, baseline = ("-" if metric.get(k) is None else f"{metric[k]:.4g}" for k in ("value", "repeat"))
        values = ["-", value, "-", baseline]  # of the first sample of each clip
        yield [*_head(summary, name, metric), *values, _published(dataset, protocol["model"], name), *ends]


def _head(summary, name, metric):
    better = "higher" if metric["higher_is_better"] else "lower"
    return [summary["label"], summary["protocol"]["model"], name, better]


def _published(dataset, model, metric):
    value, source = PUBLISHED.get((dataset, model, metric), (None, None))
    return "" if value is None else f"{value:g} ({source})"


def _protocol(summary):
    p = summary["protocol"]
    return (
        f"{summary['label']}: {p['model']} after {p['step']} steps, split {p['split']}, {p['context_frames']} frames"
        f" given, {p['predicted_frames']} predicted, frames {p['frame_shape']}, seed {p['seed']},"
        f" batch size {p['batch_size']}"
    )
