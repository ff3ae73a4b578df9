"""What people read of an evaluation: tables, plots and pages, of one run or of several side by side."""

import csv
import io
import os

import tensorflow as tf

from tfvid.evaluation import tables
from tfvid.evaluation.frame_files import gif_path
from tfvid.evaluation.pages import Page
from tfvid.evaluation.plots import plot_steps

STATISTICS = ("best", "average", "worst")
BASELINE = "repeat last frame"
_BASELINE_STYLE = {"color": "0.4", "linestyle": "--"}


def write_evaluation(folder, summary, shown):
    """Writes summary.md, plots/ and index.html of one run.

    Args:
      summary: what summary.json holds.
      shown: indices of the clips whose GIFs are there.
    """
    header, rows = evaluation_table(summary)
    _write(os.path.join(folder, "summary.md"), _markdown(summary, header, rows))
    page = Page(f"{summary['label']} on {summary['protocol']['dataset']}/{summary['protocol']['split']}")
    page.table(header, rows)
    page.text(_explanation(summary))
    plots = {}
    for name, metric in summary["metrics"].items():
        plots[name] = _plot(folder, name, _own_curves(summary, metric), summary["protocol"])
    page.plots({name: path for name, path in plots.items() if path})
    if shown:
        page.heading("Clips")
        page.text("Green border: given; red: predicted. The average is the mean image over the samples.")
        for index in shown:
            page.clips(_clip_sources(folder, index, summary, ""))
    page.heading("Protocol")
    page.facts(protocol_facts(summary))
    page.write(os.path.join(folder, "index.html"))


def write_comparison(folder, summaries):
    """Writes comparison.{csv,json,md}, plots/ and index.html of several runs.

    Args:
      summaries: {label: what its summary.json holds}; the folder of a run is its label.
    """
    tables.write_json(os.path.join(folder, "comparison.json"), {"models": summaries})
    _write(os.path.join(folder, "comparison.csv"), _long_csv(summaries))
    header, rows, best = comparison_table(summaries)
    marked = [
        [f"**{c}**" if (i, j) in best else c for j, c in enumerate(row)] for i, row in enumerate(rows)
    ]
    first = next(iter(summaries.values()))
    text = f"# {', '.join(summaries)} on {first['protocol']['dataset']}/{first['protocol']['split']}\n\n"
    _write(os.path.join(folder, "comparison.md"), text + tables.markdown_table(header, marked))
    page = Page(f"{' · '.join(summaries)} on {first['protocol']['dataset']}/{first['protocol']['split']}")
    page.table(header, rows, best)
    page.text("mean ± standard error over clips; best and worst: of the samples of each clip, by that metric")
    page.plots(_comparison_plots(folder, summaries))
    shown = _shown_in_all(folder, summaries)
    if shown:
        page.heading("Clips")
        page.text("Green border: given; red: predicted.")
    for index in shown:
        page.clips(_comparison_clips(folder, index, summaries))
    for label, summary in summaries.items():
        page.heading(label)
        page.facts(protocol_facts(summary))
    page.write(os.path.join(folder, "index.html"))


def evaluation_table(summary):
    """(header, rows) of strings: each metric's best, average, worst and the baseline."""
    deterministic = _single(summary)
    columns = ["value"] if deterministic else ["best", "average", "worst"]
    header = ["metric", "better", *columns, BASELINE]
    rows = []
    for name, metric in summary["metrics"].items():
        keys = ["average"] if deterministic else list(STATISTICS)
        better = "higher" if metric["higher_is_better"] else "lower"
        rows.append([name, better, *(tables.format_value(metric[k]) for k in (*keys, "repeat"))])
    if summary["diversity"]:
        filler = [""] * (len(columns) - 1)
        rows.append(["diversity", "", tables.format_value(summary["diversity"]), *filler, ""])
    for name, metric in summary["sets"].items():
        filler = [""] * (len(columns) - 1)
        baseline = metric.get("repeat")
        better = "higher" if metric["higher_is_better"] else "lower"
        shown = "-" if metric["value"] is None else f"{metric['value']:.4g}"
        rows.append([name, better, shown, *filler, "" if baseline is None else f"{baseline:.4g}"])
    return header, rows


def comparison_table(summaries):
    """(header, rows, cells of the best model of each column)."""
    first = next(iter(summaries.values()))
    names = [n for n in first["metrics"] if all(n in s["metrics"] for s in summaries.values())]
    sets = [n for n in first["sets"] if all(n in s["sets"] for s in summaries.values())]
    shown = ("best", "average")
    header = ["model", *(f"{n} ({k})" for n in names for k in shown), *sets]
    rows, best = [], set()
    for label, s in summaries.items():
        values = [tables.format_value(s["metrics"][n][k]) for n in names for k in shown]
        values += ["-" if s["sets"][n]["value"] is None else f"{s['sets'][n]['value']:.4g}" for n in sets]
        rows.append([label, *values])
    baseline = [tables.format_value(first["metrics"][n]["repeat"]) for n in names for _ in shown]
    rows.append([BASELINE, *baseline, *("" for _ in sets)])
    columns = [(lambda s, n=n, k=k: s["metrics"][n][k]["mean"], first["metrics"][n]) for n in names for k in shown]
    columns += [(lambda s, n=n: s["sets"][n]["value"], first["sets"][n]) for n in sets]
    for j, (value, metric) in enumerate(columns, 1):
        found = [(value(s), i) for i, s in enumerate(summaries.values()) if value(s) is not None]
        if found:
            best.add(((max if metric["higher_is_better"] else min)(found)[1], j))
    return header, rows, best


def final_text(folder, summaries):
    """What the command prints at its end."""
    lines = []
    for label, summary in summaries.items():
        header, rows = evaluation_table(summary)
        clips = summary["protocol"]["clips"]
        title = f"{label}: mean ± standard error over {clips} clips, {_samples_text(summary)}"
        lines += ["", title, tables.text_table(header, rows), _verdict(summary)]
    numbers = "summary.json" if len(summaries) == 1 else "comparison.json"
    lines += ["", f"page:    {os.path.join(folder, 'index.html')}", f"numbers: {os.path.join(folder, numbers)}"]
    return "\n".join(lines)


def protocol_facts(summary):
    """{name: value} of the protocol and of each metric's definition."""
    facts = {k.replace("_", " "): v for k, v in summary["protocol"].items() if v is not None}
    for kind in ("metrics", "sets"):
        for name, metric in summary[kind].items():
            weights = f"; weights SHA-256 {metric['weights_sha256']}" if metric.get("weights_sha256") else ""
            facts[name] = metric["doc"] + weights
    for name, reason in summary["skipped"].items():
        facts[name] = f"left out: {reason}"
    return facts


def _single(summary):
    """Whether there is one sample only: best, average and worst are the same."""
    return summary["protocol"]["samples"] == 1 or summary["protocol"]["deterministic"]


def _samples_text(summary):
    if summary["protocol"]["deterministic"]:
        return "the same prediction for every seed"
    return f"{summary['protocol']['samples']} samples each"


def _verdict(summary):
    """One line: which metrics of the average sample beat the baseline."""
    wins, losses = [], []
    for name, metric in summary["metrics"].items():
        ours, baseline = metric["average"]["mean"], metric["repeat"]["mean"]
        if ours is not None and baseline is not None:
            better = ours > baseline if metric["higher_is_better"] else ours < baseline
            (wins if better else losses).append(name)
    parts = [f"{word} in {', '.join(names)}" for word, names in (("better", wins), ("not better", losses)) if names]
    return f"average sample against repeating the last frame: {'; '.join(parts)}" if parts else ""


def _explanation(summary):
    return (
        f"Mean ± standard error over {summary['protocol']['clips']} clips; {_samples_text(summary)}."
        " Best and worst: of the samples of each clip, by that metric's mean over the predicted frames."
    )


def _own_curves(summary, metric):
    if _single(summary):
        curves = {summary["label"]: (metric["average"], {})}
    else:
        curves = {f"{summary['label']}, {k}": (metric[k], {}) for k in STATISTICS}
    return {**curves, BASELINE: (metric["repeat"], _BASELINE_STYLE)}


def _plot(folder, name, curves, protocol, file=None):
    """Writes plots/<file>.png; its path relative to `folder`, or None without any value."""
    curves = {k: v for k, v in curves.items() if v[0] is not None}
    if not curves:
        return None
    relative = os.path.join("plots", f"{file or name}.png")
    tf.io.gfile.makedirs(os.path.join(folder, "plots"))
    first = protocol["context_frames"] + 1
    plot_steps(os.path.join(folder, relative), name, curves, first, protocol["training_length"])
    return relative


def _comparison_plots(folder, summaries):
    first = next(iter(summaries.values()))
    plots = {}
    for name, metric in first["metrics"].items():
        for statistic in ("best", "average"):
            curves = {
                label: (s["metrics"][name][statistic], {}) for label, s in summaries.items() if name in s["metrics"]
            }
            curves[BASELINE] = (metric["repeat"], _BASELINE_STYLE)
            path = _plot(folder, f"{name}, {statistic} sample", curves, first["protocol"], f"{name}_{statistic}")
            if path:
                plots[f"{name}, {statistic} sample"] = path
    return plots


def _clip_sources(folder, index, summary, prefix):
    """{caption: relative path} of the GIFs of a clip that exist."""
    captions = {"truth": "truth", "repeat": BASELINE}
    if _single(summary):
        captions["avg"] = "prediction"
    else:
        captions["avg"] = "average"
        for name, metric in summary["metrics"].items():
            signed_higher = metric["higher_is_better"] == (metric["csv_sign"] > 0)
            for kind in ("max", "min"):
                captions[f"{name}_{kind}"] = f"{name} {'best' if (kind == 'max') == signed_higher else 'worst'}"
    sources = {}
    for gif, caption in captions.items():
        path = gif_path(os.path.join(folder, prefix), index, gif)
        if tf.io.gfile.exists(path):
            sources[f"{index}: {caption}"] = os.path.relpath(path, folder).replace(os.sep, "/")
    return sources


def _comparison_clips(folder, index, summaries):
    sources = {}
    for label, summary in summaries.items():
        for caption, path in _clip_sources(folder, index, summary, label).items():
            what = caption.split(": ", 1)[1]
            if what in ("truth", BASELINE):
                sources.setdefault(caption, path)
            elif what.endswith("best") or what == "prediction":
                sources[f"{index}: {label}, {what}"] = path
    return sources


def _shown_in_all(folder, summaries):
    """Indices of clips whose GIFs every run has."""
    shown = None
    for label in summaries:
        gifs = os.path.join(folder, label, "gifs")
        names = tf.io.gfile.listdir(gifs) if tf.io.gfile.isdir(gifs) else []
        found = {int(n.split("_")[0]) for n in names if n.endswith("_truth.gif")}
        shown = found if shown is None else shown & found
    return sorted(shown or ())


def _long_csv(summaries):
    """One line for each model, metric, statistic and step ("mean": over the steps)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["model", "metric", "statistic", "step", "mean", "standard_error"])
    for label, summary in summaries.items():
        for name, metric in summary["metrics"].items():
            for statistic in (*STATISTICS, "repeat"):
                s = metric[statistic]
                if s is None:
                    continue
                writer.writerow([label, name, statistic, "mean", s["mean"], s["se"]])
                for step, (mean, error) in enumerate(zip(s["per_step"]["mean"], s["per_step"]["se"])):
                    writer.writerow([label, name, statistic, step, mean, error])
        for name, metric in summary["sets"].items():
            writer.writerow([label, name, "value", "", metric["value"], ""])
    return buffer.getvalue()


def _markdown(summary, header, rows):
    protocol = "\n".join(f"- {k}: {v}" for k, v in protocol_facts(summary).items())
    title = f"# {summary['label']} on {summary['protocol']['dataset']}/{summary['protocol']['split']}"
    return f"{title}\n\n{tables.markdown_table(header, rows)}\n{_explanation(summary)}\n\n## Protocol\n\n{protocol}\n"


def _write(path, text):
    with tf.io.gfile.GFile(path, "w") as f:
        f.write(text)
