"""The progress line of a training: step, losses, throughput, share of waiting, time left."""

import shutil
import sys
import time


class Progress:
    """Prints one line that is replaced on a terminal, or a line now and then into a file.

    Args:
      target: steps of the whole run.
      start: step it begins at.
      batch_size: clips in a step.
      stream: where to print.
      seconds_between: at most one line in this time where the stream is no terminal.
    """

    def __init__(self, target, start, batch_size, stream=None, seconds_between=30.0):
        self.target, self.batch_size = target, batch_size
        self.stream = stream or sys.stdout
        self.terminal = self.stream.isatty()
        self.interval = 0.25 if self.terminal else seconds_between
        self._start = start
        self._mark = (start, time.monotonic(), 0.0)
        self._shown_at = float("-inf")
        self._length = 0
        self._left_out = 0.0

    def leave_out(self, seconds):
        """Time that was spent on something else than steps (validation, samples, saving)."""
        self._left_out += seconds

    def update(self, step, logs, waited, force=False):
        """Shows `step`, unless a line was shown a moment ago.

        Args:
          step: finished steps.
          logs: {name: number} of that step.
          waited: seconds spent waiting for data since the start.
          force: show it in any case.
        """
        now = time.monotonic()
        if not force and now - self._shown_at < self.interval:
            return
        self._shown_at = now
        self._print(self.line(step, logs, waited, now))
        # Rates are of the last few seconds, so that they follow what happens; the first
        # step, which builds the graph, is not among them.
        if now - self._mark[1] > 5 or step == self._start + 1:
            self._mark = (step, now, waited)
            self._left_out = 0.0

    def line(self, step, logs, waited, now=None):
        """The text of the line."""
        now = time.monotonic() if now is None else now
        first, since, waited_then = self._mark
        seconds = max(now - since - self._left_out, 1e-9)
        rate = (step - first) / seconds
        parts = [f"{step}/{self.target}"]
        if self.terminal:
            done = int(20 * step / max(self.target, 1))
            parts.append("━" * done + "─" * (20 - done))
        if step == self._start + 1:
            parts.append(f"first step {seconds:.1f} s (builds the graph)")
        elif step > first:
            parts.append(f"{rate:.3g} steps/s {rate * self.batch_size:.3g} clips/s")
            parts.append(f"data wait {min((waited - waited_then) / seconds, 1):.0%}")
            parts.append(f"left {duration((self.target - step) / rate)}")
        parts += [f"{k} {v:.4g}" for k, v in logs.items() if not k.endswith(("_grad_norm", "_skipped"))]
        return " · ".join(parts)

    def note(self, text):
        """A line that stays, above the progress line."""
        if self.terminal and self._length:
            print("\r" + " " * self._length + "\r", end="", file=self.stream)
            self._length = 0
        print(text, file=self.stream, flush=True)

    def close(self):
        """Ends the line."""
        if self.terminal and self._length:
            print(file=self.stream, flush=True)
            self._length = 0

    def _print(self, text):
        if not self.terminal:
            print(text, file=self.stream, flush=True)
            return
        text = text[: shutil.get_terminal_size().columns - 1]
        print("\r" + text.ljust(self._length), end="", file=self.stream, flush=True)
        self._length = len(text)


def duration(seconds):
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
