"""Streaming statistics of samples: ties, images, memory."""

import tracemalloc

import numpy as np
import pytest

from tfvid.evaluation import tables
from tfvid.evaluation.samples import Diversity, SampleStatistics, to_uint8


def test_ties_keep_the_earlier_sample():
    statistics = SampleStatistics(["m"])
    for curve in ([1.0, 3.0], [2.0, 2.0], [0.0, 4.0]):
        statistics.update({"m": np.array([curve])})
    for kind in ("max", "min"):
        assert statistics.sample_index("m", kind).tolist() == [0]
        np.testing.assert_array_equal(statistics.curves("m", kind), [[1, 3]])
    np.testing.assert_allclose(statistics.curves("m", "avg"), [[1, 3]])


def test_images_follow_each_metric_and_each_clip():
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(6, 2, 3)) for name in ("a", "b")}
    images = rng.uniform(size=(6, 2, 3, 4, 4, 1))
    statistics = SampleStatistics(["a", "b"])
    for s in range(6):
        statistics.update({k: v[s] for k, v in values.items()}, {1: images[s, 1]})
    for name in ("a", "b"):
        means = values[name].mean(-1)[:, 1]
        np.testing.assert_array_equal(statistics.frames(1, name, "max"), to_uint8(images[means.argmax(), 1]))
        np.testing.assert_array_equal(statistics.frames(1, name, "min"), to_uint8(images[means.argmin(), 1]))
    np.testing.assert_array_equal(statistics.frames(1, "a", "avg"), to_uint8(images[:, 1].mean(0)))
    assert not statistics.has_frames(0)


def test_memory_does_not_grow_with_samples():
    def peak(samples):
        rng = np.random.default_rng(0)
        statistics = SampleStatistics(["a", "b"])
        tracemalloc.start()
        for _ in range(samples):
            statistics.update(
                {"a": rng.normal(size=(2, 5)), "b": rng.normal(size=(2, 5))}, {0: rng.uniform(size=(5, 16, 16, 3))}
            )
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    few, many = peak(10), peak(200)
    assert many < 1.2 * few, (few, many)


def test_diversity_divides_by_the_number_of_pairs_it_would_have():
    diversity = Diversity(pairs=10)
    for value in (1.0, 3.0):
        diversity.update(np.full((1, 2), value))
    np.testing.assert_allclose(diversity.result(), [[0.4, 0.4]])
    for _ in range(20):
        if diversity.wants_more:
            diversity.update(np.ones((1, 2)))
    np.testing.assert_allclose(diversity.result(), [[1.2, 1.2]])


def test_pngs_are_truncated_not_rounded():
    np.testing.assert_array_equal(to_uint8(np.array([0.0, 0.999, 1.0, 1.5, -1])), [0, 254, 255, 255, 0])


def test_summary_leaves_out_missing_values(tmp_path):
    path = str(tmp_path / "m.csv")
    with tables.CurveWriter(path, 3) as writer:
        writer.write(0, [1.0, np.nan, 3.0])
        writer.write(1, [2.0, np.nan, 7.0])
    summary = tables.summarise(path, sign=-1)
    assert summary["per_step"]["mean"] == [-1.5, None, -5.0]
    assert summary["mean"] == pytest.approx(-(2 + 4.5) / 2)
    assert summary["count"] == 2 and summary["per_step"]["se"][1] is None


def test_writing_keeps_every_digit(tmp_path):
    path, values = str(tmp_path / "m.csv"), np.random.default_rng(0).normal(size=(4, 5))
    with tables.CurveWriter(path, 5) as writer:
        for i, row in enumerate(values):
            writer.write(i, row)
    np.testing.assert_array_equal([c for _, c in tables.read_curves(path)], values)


def test_memory_of_tables_does_not_grow_with_clips(tmp_path):
    def peak(clips):
        path = str(tmp_path / f"{clips}.csv")
        tracemalloc.start()
        with tables.CurveWriter(path, 20) as writer:
            for i in range(clips):
                writer.write(i, np.full(20, float(i)))
        tables.summarise(path)
        tables.merge_curves([path], path + ".merged")
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(5)  # imports and caches
    few, many = peak(20), peak(1000)
    assert many < 2 * few, (few, many)
