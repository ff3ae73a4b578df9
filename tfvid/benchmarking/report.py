"""Results as text, JSON and one table of all that was measured."""

import json
import os

# (heading, path into the results, factor, format)
COLUMNS = (
    ("step s", ("train", "step_seconds"), 1, "{:.3f}"),
    ("step CPU s", ("train", "step_cpu_seconds"), 1, "{:.2f}"),
    ("first step s", ("train", "seconds_to_first_step"), 1, "{:.1f}"),
    ("waiting", ("train", "waiting_for_data"), 100, "{:.1f} %"),
    ("GMAC/step", ("train", "multiply_adds"), 1e-9, "{:.1f}"),
    ("of ceiling", ("train", "share_of_ceiling"), 100, "{:.0f} %"),
    ("peak MB", ("train", "peak_rss_bytes"), 1e-6, "{:.0f}"),
    ("frame s", ("generate", "frame_seconds"), 1, "{:.4f}"),
    ("GMAC/frame", ("generate", "multiply_adds_a_frame"), 1e-9, "{:.2f}"),
    ("of ceiling", ("generate", "share_of_ceiling"), 100, "{:.0f} %"),
    ("peak MB", ("generate", "peak_rss_bytes"), 1e-6, "{:.0f}"),
    ("parameters", ("train", "parameters"), 1, "{:,.0f}"),
    ("ceiling GFLOP/s", ("ceiling", "gflops"), 1, "{:.0f}"),
    ("beside steps", ("train", "ceiling_gflops"), 1, "{:.0f}"),
    ("beside frames", ("generate", "ceiling_gflops"), 1, "{:.0f}"),
)


def complete(results):
    """Adds the share of the convolution ceiling, as measured beside them, that steps and generated videos reach."""
    train, generate = results.get("train"), results.get("generate")
    if train:
        _add_share(train, train["step_seconds"])
    if generate:
        _add_share(generate, generate["frame_seconds"] * generate["frames"])
        generate["multiply_adds_a_frame"] = generate["multiply_adds"] / generate["frames"]
    return results


def _add_share(part, seconds):
    part["gflops"] = 2 * part["multiply_adds"] / seconds / 1e9
    part["share_of_ceiling"] = part["gflops"] / part["ceiling_gflops"]


def table(all_results):
    """A Markdown table, one row for each result."""
    head = ["model", "file", "batch", *(name for name, *_ in COLUMNS), "date"]
    rows = [head, ["---"] * len(head)]
    for r in all_results:
        cells = [r["model"], r["hparams_file"], str(r["batch_size"])]
        for _, (part, key), factor, form in COLUMNS:
            value = r.get(part, {}).get(key)
            cells.append("" if value is None else form.format(value * factor))
        rows.append([*cells, r["date"]])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def text(results):
    """All that was measured of one model, for the terminal and beside the JSON."""
    m = results["machine"]
    parts = [
        f"# {results['model']}, {results['hparams_file']}, batch {results['batch_size']}\n",
        f"{results['date']}; {m['cpu']}, {m['cores']} cores{''.join(', ' + g for g in m['gpus'])};"
        f" TensorFlow {m['tensorflow']}, Python {m['python']}; load average before: {m['load_average']}\n",
        f"    {results['command']}\n",
        table([results]),
    ]
    for part, title in (("train", "training step"), ("generate", "generated video")):
        if part not in results:
            continue
        parts.append(f"\nWhere the time of a {title} goes (operations that run side by side add up):\n")
        parts.append("| operation | seconds | number |\n| --- | --- | --- |")
        parts += [f"| {kind} | {s:.4f} | {n:.0f} |" for kind, s, n in results[part]["top_operations"]]
    for name, seconds in results.get("generate", {}).get("parts_seconds", {}).items():
        parts.append(f"\n{name}: {seconds:.3f} s")
    train = results.get("train", {})
    if train.get("operations_of_unknown_shape") or train.get("loops_of_unknown_length"):
        parts.append(
            f"\nNot counted: operations of unknown shape {train['operations_of_unknown_shape']};"
            f" {train['loops_of_unknown_length']} loops of unknown length were counted once."
        )
    return "\n".join(parts) + "\n"


def save(results, folder, name):
    """Writes <folder>/<name>.json and .md, and the table of all in <folder>/README.md; returns the .md's path."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{name}.json"), "w") as f:
        f.write(json.dumps(results, indent=1) + "\n")
    path = os.path.join(folder, f"{name}.md")
    with open(path, "w") as f:
        f.write(text(results))
    every = []
    for other in sorted(os.listdir(folder)):
        if other.endswith(".json"):
            with open(os.path.join(folder, other)) as f:
                every.append(json.load(f))
    with open(os.path.join(folder, "README.md"), "w") as f:
        f.write("# All that was measured\n\nWritten by `python scripts/benchmark.py`; the .md beside each JSON has ")
        f.write("the machine, the command and a profile.\n\n" + table(every))
    return path


def evaluation_text(results):
    """What scripts/benchmark_evaluation.py measured, as Markdown."""
    m, rows = results["machine"], results["rows"]
    lines = [
        f"# Evaluation of {results['model']} on {results['dataset']}, {results['samples']} samples, {results['metrics']}\n",
        f"{results['date']}; {m['cpu']}, {m['cores']} cores; TensorFlow {m['tensorflow']}\n",
        f"    {results['command']}\n",
        "| clips | seconds | peak MB |\n| --- | --- | --- |",
        *(f"| {r['clips']:,} | {r['seconds']:.1f} | {r['peak_rss_bytes'] / 1e6:.0f} |" for r in rows),
    ]
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        more = (last["peak_rss_bytes"] - first["peak_rss_bytes"]) / 1e6
        lines.append(f"\n{last['clips'] - first['clips']:,} clips more took {more:.0f} MB more.")
    return "\n".join(lines) + "\n"
