"""The table of metrics with one value for a whole set of clips.

A set metric sees the first sample of every clip through `update`, holds sums of a fixed
size, and can be saved and merged, so that shards give the result of one process.
"""

import io
import typing

import numpy as np
import tensorflow as tf

from tfvid.errors import UserError
from tfvid.metrics import actions, detection, distributions, i3d, weights

# Features of Inception kept for precision and recall; memory is bounded by it.
PRD_FEATURES = 10000
# Learnt actions and movements of so many steps are kept for the action metrics.
ACTION_STEPS = 1000000


class Agent(typing.NamedTuple):
    """What the actions of a data set move.

    Attributes:
      states: how many of the first numbers of `states` are its position; None: all.
      scale: pixels, or another unit that metrics are given in, of one in `states`.
      detector: function from frames [..., H, W, C] to positions (-1: not found), or None.
    """

    states: int | None = None
    scale: float = 1.0
    detector: typing.Callable | None = None


def _breakout_paddle(frames):
    return detection.paddle_positions(frames, scaled=frames.shape[-3] != detection.SCREEN_ROWS)


# By data set; others: all numbers of `states` as they are.
AGENTS = {"breakout": Agent(1, 160.0, _breakout_paddle)}


class SetMetric:
    """Base of set metrics.

    Attributes:
      doc, higher_is_better, checksum: as in `StepMetric`.
    """

    doc = None
    higher_is_better = False
    checksum = None

    def update(self, clip, context, outputs, valid):
        """Adds one batch.

        Args:
          clip: {key: [B, context + h, ...]} truth, images float in [0, 1].
          outputs: {key: [B, h, ...]} of the first sample.
          valid: [B] bool.
        """
        raise NotImplementedError

    def state(self):
        """{name: array} of everything seen."""
        raise NotImplementedError

    def merge(self, states):
        """Replaces what was seen by the union of several `state()`."""
        raise NotImplementedError

    def result(self):
        """{"value": number or None, "repeat": the same of the baseline or None, ...}."""
        raise NotImplementedError

    def described(self):
        """What stands in the summary beside the value."""
        return {"doc": self.doc, "higher_is_better": self.higher_is_better, "weights_sha256": self.checksum}

    def save(self, path):
        """Writes `state()`."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.state())
        with tf.io.gfile.GFile(path, "wb") as f:
            f.write(buffer.getvalue())

    def merge_files(self, paths):
        """`merge` of files that `save` wrote."""
        self.merge([_read(path) for path in paths])


class FrechetDistance(SetMetric):
    """Distance between the features of the predicted and of the true set.

    Args:
      name: in the protocol's text.
      dimension: of the features.
      features: function ([B, T, H, W, C] in [0, 1], context) -> [N, dimension].
      doc, checksum: see `SetMetric`.
    """

    SIDES = ("truth", "predicted", "repeat")

    def __init__(self, dimension, features, doc, checksum):
        self.doc, self.checksum = doc, checksum
        self._dimension, self._features = dimension, features
        self._statistics = {side: distributions.GaussianStatistics(dimension) for side in self.SIDES}

    def update(self, clip, context, outputs, valid):
        for side, frames in _three_sets(clip["images"], context, outputs["images"], valid).items():
            self._statistics[side].update(self._features(frames, context))

    def state(self):
        states = {side: s.state() for side, s in self._statistics.items() if s.count}
        return {f"{side}/{k}": v for side, state in states.items() for k, v in state.items()}

    def merge(self, states):
        self._statistics = {side: distributions.GaussianStatistics(self._dimension) for side in self.SIDES}
        for state in states:
            for side in self.SIDES:
                part = {k.split("/", 1)[1]: v for k, v in state.items() if k.startswith(f"{side}/")}
                if part:
                    self._statistics[side].merge(distributions.GaussianStatistics.from_state(part))

    def result(self):
        truth, count = self._statistics["truth"], self._statistics["truth"].count
        if count < 2:
            return {"value": None, "repeat": None, "count": count}
        values = {s: distributions.frechet_distance_of(self._statistics[s], truth) for s in ("predicted", "repeat")}
        return {"value": values["predicted"], "repeat": values["repeat"], "count": count}


class InceptionScore(SetMetric):
    """Inception score of the predicted frames."""

    higher_is_better = True

    def __init__(self, probabilities, classes, doc, checksum):
        self.doc, self.checksum, self._probabilities = doc, checksum, probabilities
        self._scores = {side: distributions.InceptionScore(classes) for side in ("predicted", "repeat")}

    def update(self, clip, context, outputs, valid):
        sets = _three_sets(clip["images"], context, outputs["images"], valid)
        for side, score in self._scores.items():
            score.update(self._probabilities(sets[side], context))

    def state(self):
        return {
            f"{side}/{k}": np.asarray(getattr(score, k))
            for side, score in self._scores.items()
            for k in ("count", "sum", "negative_entropy")
        }

    def merge(self, states):
        for side, score in self._scores.items():
            for k in ("count", "sum", "negative_entropy"):
                setattr(score, k, sum(state[f"{side}/{k}"] for state in states))

    def result(self):
        values = {side: score.result() if score.count else None for side, score in self._scores.items()}
        return {"value": values["predicted"], "repeat": values["repeat"]}


class PrecisionRecall(SetMetric):
    """F_8 of precision and recall of distributions; F_1/8 beside it.

    Keeps the features of the first `PRD_FEATURES` frames: clusters need all at once.
    """

    higher_is_better = True

    def __init__(self, features, doc, checksum):
        self.doc, self.checksum, self._features = doc, checksum, features
        self._kept = {side: [] for side in FrechetDistance.SIDES}

    def update(self, clip, context, outputs, valid):
        for side, frames in _three_sets(clip["images"], context, outputs["images"], valid).items():
            room = PRD_FEATURES - sum(map(len, self._kept[side]))
            if room > 0:
                self._kept[side].append(np.asarray(self._features(frames, context), np.float32)[:room])

    def state(self):
        return {side: np.concatenate(kept) for side, kept in self._kept.items() if kept}

    def merge(self, states):
        for side in self._kept:
            parts = [s[side] for s in states if side in s]
            self._kept[side] = [np.concatenate(parts)[:PRD_FEATURES]] if parts else []

    def result(self):
        sets = self.state()
        if not sets:
            return {"value": None, "repeat": None}
        scores = {side: self._f_scores(sets[side], sets["truth"]) for side in ("predicted", "repeat")}
        return {
            "value": scores["predicted"][0], "repeat": scores["repeat"][0],
            "f_1/8": scores["predicted"][1], "repeat_f_1/8": scores["repeat"][1],
        }  # fmt: skip

    def _f_scores(self, evaluated, reference, runs=10):
        curves = []
        for run in range(runs):
            histograms = distributions.cluster_histograms(evaluated, reference, seed=run)
            curves.append(distributions.precision_recall(*histograms))
        precision, recall = np.mean(curves, axis=0)
        return [distributions.f_beta(precision, recall, beta) for beta in (8, 1 / 8)]


class ActionAccuracy(SetMetric):
    """Agreement of learnt and true actions after the best one-to-one matching."""

    higher_is_better = True
    doc = "share of steps whose learnt action is the one matched to the true action (Hungarian matching)"

    def __init__(self):
        self._votes = np.zeros((0, 0), np.int64)

    def update(self, clip, context, outputs, valid):
        learnt = np.asarray(outputs["actions"])[valid]
        # Label t leads from frame t to t + 1: the first predicted frame follows from label context - 1.
        truth = np.asarray(clip["action_labels"])[valid][:, context - 1 : context - 1 + learnt.shape[1]]
        known = truth >= 0
        votes = np.zeros((1 + max(truth.max(initial=0), learnt.max(initial=0)),) * 2, np.int64)
        np.add.at(votes, (truth[known], learnt[known]), 1)
        self._votes = _sum_squares([self._votes, votes])

    def state(self):
        return {"votes": self._votes}

    def merge(self, states):
        self._votes = _sum_squares([s["votes"] for s in states])

    def result(self):
        if not self._votes.sum():
            return {"value": None}
        mapping = actions.match_actions(self._votes)
        agreed = self._votes[np.arange(len(mapping)), mapping].sum()
        always = self._votes.sum(1).max()  # of always the most frequent action
        total = self._votes.sum()
        return {"value": float(agreed / total), "most_frequent": float(always / total), "matching": mapping.tolist()}


def _sum_squares(matrices):
    """Sum of square matrices of different sizes, each filled up with zeros."""
    size = max(len(m) for m in matrices)
    return sum(np.pad(m, (0, size - len(m))) for m in matrices)


class ActionEffect(SetMetric):
    """What learnt actions say about the movement of the data's state: Delta-MSE and Delta-Acc."""

    def __init__(self, accuracy, agent=None):
        self._accuracy, self.higher_is_better = accuracy, accuracy
        self._agent = agent or Agent()
        what = (
            "share of learnt actions that a linear classifier tells from the movement, on the data it is fitted to"
            if accuracy
            else "variance of the movement within the learnt actions, in percent of all"
        )
        count = self._agent.states
        part = "states" if count is None else f"states (the first {count} of its numbers, times {self._agent.scale:g})"
        self.doc = f"{what}; movement: difference of the data's {part} from one frame to the next"
        self._movements, self._labels = [], []

    def update(self, clip, context, outputs, valid):
        learnt = np.asarray(outputs["actions"])[valid]
        states = np.asarray(clip["states"])[valid][:, context - 1 : context + learnt.shape[1], : self._agent.states]
        states = states * self._agent.scale
        if sum(map(len, self._labels)) < ACTION_STEPS:
            self._movements.append(np.diff(states, axis=1).reshape(-1, states.shape[-1]))
            self._labels.append(learnt.reshape(-1))

    def state(self):
        return {"movements": _joined(self._movements), "labels": _joined(self._labels)}

    def merge(self, states):
        self._movements, self._labels = ([s[k] for s in states if len(s[k])] for k in ("movements", "labels"))

    def result(self):
        movements, labels = _joined(self._movements), _joined(self._labels)
        if len(labels) < 2:
            return {"value": None}
        if self._accuracy:
            return {"value": actions.delta_accuracy(movements, labels)[0]}
        value = actions.delta_mse(movements, labels)
        return {"value": 100 * value if np.isfinite(value) else None}


class Detection(SetMetric):
    """Where the agent is in generated and true frames: ADD and MDR."""

    def __init__(self, rate, agent):
        self._rate, self._detector = rate, agent.detector
        self.doc = (
            "share of true frames with a detection in which the generated frame has none"
            if rate
            else "mean distance in pixels of the agent in generated and true frames, where both have it"
        )
        self._counts = np.zeros((2, 4))  # predicted, repeat: sum of distances, found in both, missed, in the truth

    def update(self, clip, context, outputs, valid):
        sides = _three_sets(clip["images"], context, outputs["images"], valid)
        truth, *others = (self._detector(np.asarray(sides[s])[:, context:]) for s in ("truth", "predicted", "repeat"))
        for counts, found in zip(self._counts, others):
            statistics = detection.detection_statistics(truth, found)
            both, missed, known = (
                statistics[f"{k}_detections"][-1] for k in ("successful", "missed", "reference")
            )
            counts += [np.nan_to_num(statistics["center_distance"][-1]) * both, both, missed, known]

    def state(self):
        return {"counts": self._counts}

    def merge(self, states):
        self._counts = sum(s["counts"] for s in states)

    def result(self):
        over, under = (2, 3) if self._rate else (0, 1)
        values = [float(c[over] / c[under]) if c[under] else None for c in self._counts]
        return {"value": values[0], "repeat": values[1], "count": int(self._counts[0, under])}


def _joined(parts):
    return np.concatenate(parts) if parts else np.zeros((0,))


def _three_sets(truth, context, predicted, valid):
    """{"truth", "predicted", "repeat": [B, context + h, H, W, C]} of the valid clips, given frames included."""
    truth, predicted = tf.boolean_mask(truth, valid), tf.boolean_mask(predicted, valid)
    given = truth[:, :context]
    repeated = tf.repeat(given[:, -1:], predicted.shape[1], axis=1)
    return {
        "truth": truth,
        "predicted": tf.concat([given, tf.cast(predicted, given.dtype)], axis=1),
        "repeat": tf.concat([given, repeated], axis=1),
    }


def _inception(options):
    """(functions to features and to probabilities of the predicted frames, checksum)."""
    network = weights.load("inception", options.weights_dir)
    run = tf.function(lambda x: network(x), reduce_retracing=True)

    def outputs(frames, context):
        flat = tf.reshape(frames[:, context:], (-1, *frames.shape[2:]))
        parts = [run(flat[i : i + 32]) for i in range(0, flat.shape[0], 32)]
        return [np.concatenate([p[k].numpy() for p in parts]) for k in range(2)]

    def features(frames, context):
        return outputs(frames, context)[0]

    def probabilities(frames, context):
        return tf.nn.softmax(outputs(frames, context)[1].astype(np.float64)).numpy()

    return features, probabilities, weights.checksum(network)


_FRAMES = "predicted frames of the first sample of each clip, resized to 299x299 (bilinear, half-pixel), in [-1, 1]"


class ControlError(SetMetric):
    """How far features that were placed (CAGE) are from those of the generated frames in the same places."""

    doc = (
        "mean over placed tiles of |placed - found| / |placed|, features of the model's own vision transformer;"
        " repeat: found in the last given frame"
    )
    SIDES = {"value": "control_error", "repeat": "control_error_repeat"}

    def __init__(self):
        self._sums = np.zeros(3)  # predicted, repeat, tiles

    def update(self, clip, context, outputs, valid):
        tiles = np.asarray(outputs["num_controls"], np.float64)[valid]
        sums = [(np.asarray(outputs[k], np.float64)[valid] * tiles).sum() for k in self.SIDES.values()]
        self._sums += np.array([*sums, tiles.sum()])

    def state(self):
        return {"sums": self._sums}

    def merge(self, states):
        self._sums = sum((state["sums"] for state in states), np.zeros(3))

    def result(self):
        tiles = self._sums[2]
        value, repeat = (float(s / tiles) if tiles else None for s in self._sums[:2])
        return {"value": value, "repeat": repeat, "count": int(tiles)}


def _fid(options):
    features, _, checksum = _inception(options)
    doc = f"Frechet distance of 2048 Inception features; {_FRAMES}; covariances with N - 1"
    return FrechetDistance(2048, features, doc, checksum)


def _inception_score(options):
    _, probabilities, checksum = _inception(options)
    doc = f"exp(mean KL) over the 1008 classes of Inception; {_FRAMES}; one split"
    return InceptionScore(probabilities, 1008, doc, checksum)


def _prd(options):
    features, _, checksum = _inception(options)
    doc = (
        f"F_8 of precision and recall of distributions (20 clusters, 10 runs, 1001 angles) on Inception features;"
        f" {_FRAMES}; the first {PRD_FEATURES}"
    )
    return PrecisionRecall(features, doc, checksum)


def _fvd(options):
    network = weights.load("i3d", options.weights_dir)
    # One clip at a time: at 224x224 a batch of long clips would need gigabytes.
    run = tf.function(lambda clip: network(i3d.prepared(clip)), reduce_retracing=True)

    def features(frames, context):
        clips = [run(frames[i : i + 1]).numpy() for i in range(frames.shape[0])]
        return np.concatenate(clips) if clips else np.zeros((0, i3d.CLASSES))

    doc = (
        "Frechet distance of 400 I3D logits; whole clips, given frames included, first sample of each; resized to"
        " 224x224 (bilinear as TensorFlow 1), in [-1, 1]; covariances with N - 1"
    )
    return FrechetDistance(i3d.CLASSES, features, doc, weights.checksum(network))


# Name -> function of `step_metrics.Options`.
TABLE = {
    "fid": _fid,
    "fvd": _fvd,
    "inception_score": _inception_score,
    "prd": _prd,
    "action_accuracy": lambda options: ActionAccuracy(),
    "delta_mse": lambda options: ActionEffect(False, options.agent),
    "delta_accuracy": lambda options: ActionEffect(True, options.agent),
    "detection_distance": lambda options: Detection(False, options.agent),
    "missed_detections": lambda options: Detection(True, options.agent),
}
# Name -> (keys that the model's outputs, keys that the data must have). "detector" stands for a data set in whose
# frames the agent can be found.
NEEDS = {
    "fid": ({"images"}, {"images"}),
    "fvd": ({"images"}, {"images"}),
    "inception_score": ({"images"}, {"images"}),
    "prd": ({"images"}, {"images"}),
    "action_accuracy": ({"actions"}, {"action_labels"}),
    "delta_mse": ({"actions"}, {"states"}),
    "delta_accuracy": ({"actions"}, {"states"}),
    "control_error": ({"control_error", "control_error_repeat", "num_controls"}, set()),
    "detection_distance": ({"images"}, {"images", "detector"}),
    "missed_detections": ({"images"}, {"images", "detector"}),
}
DEFAULTS = ("action_accuracy", "delta_mse", "delta_accuracy", "detection_distance", "missed_detections")


def choose(names, outputs, data):
    """The set metrics to compute: those asked for, "all", or by default those that need no network.

    Args:
      names: asked for; empty for the defaults.
      outputs: keys of the model's outputs.
      data: keys of the batches.
    """
    possible = [n for n, (of_outputs, of_data) in NEEDS.items() if of_outputs <= set(outputs) and of_data <= set(data)]
    if not names:
        return [n for n in DEFAULTS if n in possible]
    if list(names) == ["all"]:
        return possible
    for name in names:
        if name not in possible:
            of_outputs, of_data = NEEDS[name]
            raise UserError(
                f"--metrics: {name} needs {', '.join(sorted(of_outputs))} of the model and"
                f" {', '.join(sorted(of_data))} in the data; the model gives {', '.join(sorted(outputs))}, the data"
                f" {', '.join(sorted(data))}"
            )
    return list(names)


def build(names, options, length):
    """({name: SetMetric}, {name: reason it is left out}).

    Args:
      length: frames of a clip, given ones included.
    """
    built, skipped = {}, {}
    for name in names:
        if name == "fvd" and length < i3d.SHORTEST:
            skipped[name] = f"I3D sees clips of {i3d.SHORTEST} frames and more, these have {length}"
            continue
        try:
            built[name] = TABLE[name](options)
        except weights.WeightsMissing as e:
            skipped[name] = str(e)
    return built, skipped


def _read(path):
    with tf.io.gfile.GFile(path, "rb") as f, np.load(io.BytesIO(f.read()), allow_pickle=False) as stored:
        return {k: stored[k] for k in stored.files}
