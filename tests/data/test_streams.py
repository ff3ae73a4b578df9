"""The order of training and evaluation batches."""

import numpy as np
import pytest

from tfvid.data import pipeline
from tfvid.errors import UserError


def _numpy(dataset, count=None):
    dataset = dataset if count is None else dataset.take(count)
    return [{k: v.numpy() for k, v in batch.items()} for batch in dataset]


def _equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right):
        assert set(a) == set(b)
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_training_is_a_function_of_seed_and_step(demo, hparams_of):
    hparams = hparams_of(demo, sequence_length=4)
    whole = _numpy(demo.training_batches("train", hparams, 4, seed=5), 9)
    _equal(whole, _numpy(demo.training_batches("train", hparams, 4, seed=5), 9))
    for start in (1, 6):
        _equal(whole[start:], _numpy(demo.training_batches("train", hparams, 4, seed=5, start_step=start), 9 - start))
    other = _numpy(demo.training_batches("train", hparams, 4, seed=6), 1)
    assert not np.array_equal(whole[0]["images"], other[0]["images"])


@pytest.mark.parametrize("workers", [2, 3])
def test_shards_make_the_whole_batch(demo, hparams_of, workers):
    hparams = hparams_of(demo, sequence_length=4)
    whole = _numpy(demo.training_batches("train", hparams, 2 * workers, seed=1, start_step=3), 5)
    parts = [
        _numpy(demo.training_batches("train", hparams, 2, seed=1, start_step=3, shard=(i, workers)), 5)
        for i in range(workers)
    ]
    joined = [{k: np.concatenate([p[step][k] for p in parts]) for k in whole[0]} for step in range(5)]
    _equal(whole, joined)


def test_more_workers_than_files_share_evenly(demo, hparams_of):
    # One file of two clips, three workers: each still gets a batch at every step.
    hparams = hparams_of(demo, sequence_length=4)
    for worker in range(3):
        batches = _numpy(demo.training_batches("val", hparams, 1, seed=0, shard=(worker, 3)), 4)
        assert [b["images"].shape[0] for b in batches] == [1] * 4


def test_every_epoch_holds_every_record_once(demo, hparams_of):
    hparams = hparams_of(demo, sequence_length=7)  # as long as the clips: no choice of the start
    count = demo.count("train")
    assert count == 11
    clips = np.concatenate([b["images"] for b in _numpy(demo.training_batches("train", hparams, 1, seed=3), 3 * count)])
    names = [clip.tobytes() for clip in clips]
    epochs = [names[i * count : (i + 1) * count] for i in range(3)]
    assert all(len(set(epoch)) == count for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    # Batches run across the ends of epochs.
    batched = [
        clip.tobytes() for b in _numpy(demo.training_batches("train", hparams, 4, seed=3), 8) for clip in b["images"]
    ]
    assert batched == names[:32]


def test_starts_are_multiples_of_time_shift(demo, hparams_of):
    whole = {c.tobytes(): c for c in _all_clips(demo, hparams_of)}
    first_frames = {}
    for clip in whole.values():
        for t, frame in enumerate(clip):
            first_frames[frame.tobytes()] = t
    for shift, expected in ((1, {0, 1, 2, 3, 4}), (2, {0, 2, 4}), (3, {0, 3}), (0, {0})):
        hparams = hparams_of(demo, sequence_length=3, time_shift=shift)
        batches = _numpy(demo.training_batches("train", hparams, 8, seed=0), 12)
        starts = {first_frames[clip[0].tobytes()] for b in batches for clip in b["images"]}
        assert starts == expected


def test_frame_skip_leaves_frames_out_and_joins_actions(demo, hparams_of):
    hparams = hparams_of(demo, sequence_length=3, frame_skip=1, use_state=True)
    full = _numpy(demo.evaluation_batches("test", hparams_of(demo, use_state=True), 5, length=7))[0]
    batch = _numpy(demo.evaluation_batches("test", hparams, 5))[0]
    np.testing.assert_array_equal(batch["images"], full["images"][:, 0:5:2])
    np.testing.assert_array_equal(batch["states"], full["states"][:, 0:5:2])
    np.testing.assert_array_equal(batch["actions"], full["actions"][:, :4].reshape(5, 2, 4))
    np.testing.assert_array_equal(batch["action_labels"], full["action_labels"][:, 0:4:2])


def test_evaluation_pads_and_marks_the_last_batch(demo, hparams_of):
    batches = _numpy(demo.evaluation_batches("test", hparams_of(demo), 2, length=7))
    assert [list(b["index"]) for b in batches] == [[0, 1], [2, 3], [4, -1]]
    assert [list(b["valid"]) for b in batches] == [[True, True], [True, True], [True, False]]
    assert np.isfinite(batches[-1]["boxes"]).all()
    limited = _numpy(demo.evaluation_batches("test", hparams_of(demo), 2, length=7, limit=3))
    assert [list(b["index"]) for b in limited] == [[0, 1], [2, -1]]


def test_evaluation_shards_are_whole_batches(demo, hparams_of):
    whole = _numpy(demo.evaluation_batches("test", hparams_of(demo), 2, length=7))
    parts = [_numpy(demo.evaluation_batches("test", hparams_of(demo), 2, length=7, shard=(i, 2))) for i in (0, 1)]
    _equal(whole, [parts[0][0], parts[1][0], parts[0][1]])


def test_evaluation_offsets(demo, hparams_of):
    full = _numpy(demo.evaluation_batches("test", hparams_of(demo), 5, length=7))[0]["images"]

    def starts(**options):
        hparams = hparams_of(demo, sequence_length=2, force_time_shift=True)
        clips = _numpy(demo.evaluation_batches("test", hparams, 5, **options))[0]["images"]
        return [next(t for t in range(6) if np.array_equal(f[t : t + 2], c)) for f, c in zip(full, clips)]

    assert starts(offsets="first") == [0] * 5
    assert starts(offsets="middle") == [2] * 5  # (7 - 2) // 2
    assert starts() == starts() and len(set(starts())) > 1
    # Another batch size does not move a clip.
    hparams = hparams_of(demo, sequence_length=2, force_time_shift=True)
    singles = np.concatenate([b["images"] for b in _numpy(demo.evaluation_batches("test", hparams, 1))])
    np.testing.assert_array_equal(singles, _numpy(demo.evaluation_batches("test", hparams, 5))[0]["images"])
    with pytest.raises(UserError, match="offsets: expected one of"):
        starts(offsets="last")


def test_shuffled_validation_holds_the_same_clips(demo, hparams_of):
    hparams = hparams_of(demo, shuffle_on_val=True, sequence_length=7)
    plain = _numpy(demo.evaluation_batches("val", hparams_of(demo, sequence_length=7), 2))[0]["images"]
    shuffled = _numpy(demo.evaluation_batches("val", hparams, 2))[0]["images"]
    assert {c.tobytes() for c in plain} == {c.tobytes() for c in shuffled}


def test_specification_is_what_batches_are(demo, hparams_of):
    for changes in ({}, {"use_state": True}, {"crop_size": 12}, {"scale_size": 8}, {"crop_size": 8, "scale_size": 12}):
        hparams = hparams_of(demo, sequence_length=5, **changes)
        spec = demo.spec(hparams)
        batch = next(iter(demo.training_batches("train", hparams, 3, seed=0)))
        assert {k: (v.shape[1:], v.dtype) for k, v in batch.items()} == {k: (v.shape, v.dtype) for k, v in spec.items()}
        assert ("actions" in spec) == bool(changes.get("use_state"))
    assert demo.spec(hparams_of(demo), length=0)["images"].shape[0] == 7  # the longest possible
    assert demo.spec(hparams_of(demo, frame_skip=1), length=0)["images"].shape[0] == 4


def test_wrong_shard_is_one_line(demo, hparams_of):
    with pytest.raises(UserError, match=r"shard: expected \(i, n\)"):
        demo.training_batches("train", hparams_of(demo), 2, seed=0, shard=(2, 2))


def test_padded_places_of_all_workers_cover_all_clips():
    for count, batch, workers in ((1, 4, 3), (10, 3, 2), (12, 4, 4)):
        numbers = [pipeline.padded_places(count, batch, i, workers)[0] for i in range(workers)]
        valid = np.concatenate(numbers)
        assert sorted(valid[valid >= 0]) == list(range(count))
        assert all(len(n) % batch == 0 for n in numbers)


def _all_clips(source, hparams_of):
    batches = _numpy(source.training_batches("train", hparams_of(source, sequence_length=7), 1, seed=0), 11)
    return [b["images"][0] for b in batches]
