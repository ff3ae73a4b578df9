"""Metrics of sets: accumulation, shards, alignment of actions, choice."""

import numpy as np
import pytest
import tensorflow as tf

from tests.evaluation.toy import ToySource
from tfvid.errors import UserError
from tfvid.evaluation import set_metrics, step_metrics
from tfvid.evaluation.evaluate import Request, evaluate
from tfvid.metrics import distributions, i3d, inception, weights


def colours(frames, context):
    """Stands in for a network: mean colour of each predicted frame, [B * h, 3]."""
    return np.asarray(frames)[:, context:].mean((2, 3)).reshape(-1, frames.shape[-1])


def toy_fid(options=None):
    return set_metrics.FrechetDistance(3, colours, "toy", "checksum")


def batches(count, size, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        clip = {"images": rng.uniform(size=(size, 5, 4, 4, 3)).astype("float32")}
        outputs = {"images": rng.uniform(size=(size, 3, 4, 4, 3)).astype("float32")}
        yield clip, 2, outputs, rng.uniform(size=size) < 0.8


def test_frechet_distance_sees_valid_predicted_frames():
    metric, truth, predicted, repeat = toy_fid(), [], [], []
    for clip, context, outputs, valid in batches(4, 3):
        metric.update(clip, context, outputs, valid)
        truth.append(colours(clip["images"][valid], context))
        predicted.append(colours(outputs["images"][valid], 0))
        last = np.repeat(clip["images"][valid][:, context - 1 : context], 3, axis=1)
        repeat.append(colours(last, 0))

    def gaussian(features):
        features = np.concatenate(features).astype(np.float64)
        return features.mean(0), np.cov(features.T)

    result = metric.result()
    assert result["value"] == pytest.approx(distributions.frechet_distance(*gaussian(predicted), *gaussian(truth)))
    assert result["repeat"] == pytest.approx(distributions.frechet_distance(*gaussian(repeat), *gaussian(truth)))


def halves(make):
    """(result of all batches, result of two merged halves)."""
    whole, parts = make(), [make(), make()]
    for i, batch in enumerate(batches(6, 3)):
        whole.update(*batch)
        parts[i % 2].update(*batch)
    merged = make()
    merged.merge([p.state() for p in parts])
    return whole.result(), merged.result()


def test_merged_shards_equal_the_whole():
    whole, merged = halves(toy_fid)
    assert merged == pytest.approx(whole, rel=1e-9)

    def soft(frames, context):
        features = np.exp(5 * colours(frames, context).astype(np.float64))
        return features / features.sum(1, keepdims=True)

    whole, merged = halves(lambda: set_metrics.InceptionScore(soft, 3, "toy", None))
    assert merged == pytest.approx(whole, rel=1e-12) and 1 < whole["value"] < 3


def test_precision_and_recall_of_the_same_set():
    metric = set_metrics.PrecisionRecall(colours, "toy", None)
    for clip, context, _, valid in batches(5, 4):
        metric.update(clip, context, {"images": clip["images"][:, context:]}, valid)
    result = metric.result()
    assert result["value"] == pytest.approx(1, abs=0.01)
    assert result["repeat"] <= result["value"]


def test_actions_are_aligned_and_matched():
    rng = np.random.default_rng(0)
    metric = set_metrics.ActionAccuracy()
    context, renaming = 3, np.array([2, 0, 1])
    for _ in range(3):
        labels = rng.integers(0, 3, (4, 7))
        learnt = renaming[labels[:, context - 1 :]]
        metric.update({"action_labels": labels}, context, {"actions": learnt}, np.array([True, True, True, False]))
    result = metric.result()
    assert result["value"] == 1.0 and result["matching"] == renaming.tolist()
    assert metric.state()["votes"].sum() == 3 * 3 * 5
    assert result["most_frequent"] < 0.7


def test_actions_that_move_the_state_are_told():
    rng = np.random.default_rng(1)
    error, accuracy = set_metrics.ActionEffect(False), set_metrics.ActionEffect(True)
    learnt = rng.integers(0, 3, (20, 6))
    steps = np.concatenate([rng.normal(size=(20, 1)), learnt - 1.0], axis=1)  # one step before the first predicted
    states = np.concatenate([np.zeros((20, 1)), np.cumsum(steps, axis=1)], axis=1)[..., None]
    for metric in (error, accuracy):
        metric.update({"states": states}, 2, {"actions": learnt}, np.ones(20, bool))
    assert error.result()["value"] == pytest.approx(0, abs=1e-9)
    assert accuracy.result()["value"] == 1.0


def test_where_the_agent_is():
    """A paddle of 4 pixels of 40 at column 10; generated 2 to the right, then not at all; repeated 0, then 3 away."""
    agent = set_metrics.AGENTS["breakout"]
    distance, missed = set_metrics.Detection(False, agent), set_metrics.Detection(True, agent)
    row = 190 * 52 // 208
    truth, generated = np.zeros((1, 3, 52, 40, 3), np.float32), np.zeros((1, 2, 52, 40, 3), np.float32)
    for t, place in enumerate((10, 10, 13)):
        truth[0, t, row, place : place + 4, 0] = 0.8
    generated[0, 0, row, 12:16, 0] = 0.8
    for metric in (distance, missed):
        metric.update({"images": tf.constant(truth)}, 1, {"images": tf.constant(generated)}, np.array([True]))
    assert (distance.result()["value"], distance.result()["repeat"]) == (2.0, 1.5)
    assert (missed.result()["value"], missed.result()["repeat"]) == (0.5, 0.0)


def test_only_the_agents_part_of_the_state_counts():
    rng = np.random.default_rng(2)
    learnt = rng.integers(0, 2, (8, 5))
    states = rng.normal(size=(8, 6, 3))
    states[:, :, 0] = np.concatenate([np.zeros((8, 1)), np.cumsum(learnt, axis=1)], axis=1)
    for agent, expected in ((set_metrics.Agent(1, 160.0), 0.0), (None, 50.0)):
        metric = set_metrics.ActionEffect(False, agent)
        metric.update({"states": states}, 1, {"actions": learnt}, np.ones(8, bool))
        assert (metric.result()["value"] > 50) == (expected > 0)


def test_set_metrics_in_an_evaluation_with_shards(make_run, tmp_path, monkeypatch):
    monkeypatch.setitem(set_metrics.TABLE, "fid", toy_fid)
    path = make_run(source=ToySource(count=5))
    request = {"num_samples": 1, "batch_size": 2, "metrics": ("fid", "mse"), "only_metrics": True}
    whole = evaluate([path], str(tmp_path / "a"), Request(**request), report=lambda line: None)
    for i in range(2):
        parts = evaluate([path], str(tmp_path / "b"), Request(**request, shard=(i, 2)), report=lambda line: None)
    one, other = whole["run"]["sets"]["fid"], parts["run"]["sets"]["fid"]
    assert one["count"] == other["count"] == 5 * 6
    assert one["value"] == pytest.approx(other["value"], rel=1e-9)
    assert one["weights_sha256"] == "checksum"


def test_missing_weights_and_short_clips_leave_metrics_out(tmp_path):
    options = step_metrics.Options(str(tmp_path))
    built, skipped = set_metrics.build(["fid", "fvd"], options, length=8)
    assert not built and "download_weights.py --network=inception" in skipped["fid"]
    assert skipped["fvd"] == "I3D sees clips of 9 frames and more, these have 8"


def test_choice():
    images, all_keys = {"images"}, {"images", "actions"}
    assert set_metrics.choose([], images, images) == []
    assert set_metrics.choose([], all_keys, {"images", "action_labels"}) == ["action_accuracy"]
    assert set_metrics.choose(["all"], images, images) == ["fid", "fvd", "inception_score", "prd"]
    with pytest.raises(UserError, match="delta_mse needs actions of the model and states in the data"):
        set_metrics.choose(["delta_mse"], images, images)


@pytest.mark.slow
def test_published_networks_with_random_weights(tmp_path, monkeypatch):
    """The whole way of FID, Inception score, PRD and FVD with the networks at their published size."""

    def load(name, folder=None):
        network = {"inception": inception.InceptionV3, "i3d": i3d.I3D}[name](dtype="float32")
        network.build()
        return network

    monkeypatch.setattr(weights, "load", load)
    rng = np.random.default_rng(0)
    clip = {"images": rng.uniform(size=(2, 9, 16, 16, 1)).astype("float32")}
    outputs = {"images": rng.uniform(size=(2, 7, 16, 16, 1)).astype("float32")}
    built, skipped = set_metrics.build(["fid", "fvd", "inception_score", "prd"], step_metrics.Options(), 9)
    assert not skipped
    for metric in built.values():
        metric.update(clip, 2, outputs, np.array([True, True]))
        assert np.isfinite(metric.result()["value"])
        assert len(metric.checksum) == 64 and "first" in metric.doc
