"""The original record formats, written here as their specification says."""

import types

import numpy as np
import pytest
import tensorflow as tf

from tfvid.data import softmotion, video_files
from tfvid.data.records import DataError, data_error_line
from tfvid.data.source import open_source
from tfvid.data.verify import verify_source


def _example(features):
    def feature(value):
        if isinstance(value, bytes):
            value = [value]
        if isinstance(value, list) and isinstance(value[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
        value = np.asarray(value).reshape(-1)
        if value.dtype.kind == "f":
            return tf.train.Feature(float_list=tf.train.FloatList(value=value))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))

    features = tf.train.Features(feature={k: feature(v) for k, v in features.items()})
    return tf.train.Example(features=features).SerializeToString()


def _write(path, examples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)


def _trajectory(rng, steps=6, view="image_aux1", side=8, objects=0):
    features = {}
    for t in range(steps):
        features[f"{t}/{view}/encoded"] = rng.integers(0, 256, side * side * 3, np.uint8).tobytes()
        features[f"{t}/endeffector_pos"] = rng.normal(size=3).astype(np.float32)
        features[f"{t}/action"] = rng.normal(size=4).astype(np.float32)
        if objects:
            features[f"{t}/object_pos"] = rng.uniform(0, side - 1, 2 * objects).astype(np.float32)
    return features


def _hparams(source, **changes):
    return types.SimpleNamespace(**{**source.defaults(), **changes})


def _first(source, split="test", **changes):
    return next(iter(source.evaluation_batches(split, _hparams(source, **changes), 1)))


@pytest.mark.parametrize("view", ["image_aux1", "image_view0", "image_main"])
def test_softmotion_views(tmp_path, view):
    features = _trajectory(np.random.default_rng(0), view=view)
    _write(tmp_path / "test" / "traj_0_to_0.tfrecords", [_example(features)])
    batch = _first(open_source("softmotion", tmp_path), sequence_length=4, use_state=True)
    expected = np.frombuffer(features[f"2/{view}/encoded"], np.uint8).reshape(8, 8, 3)
    np.testing.assert_array_equal(batch["images"][0, 2], expected)
    np.testing.assert_array_equal(batch["states"][0, 3], features["3/endeffector_pos"])
    np.testing.assert_array_equal(batch["actions"][0, 2], features["2/action"])


def test_softmotion_prefers_the_auxiliary_view(tmp_path):
    rng = np.random.default_rng(0)
    features = {**_trajectory(rng, view="image_view0"), **_trajectory(rng)}
    _write(tmp_path / "test" / "a.tfrecords", [_example(features)])
    batch = _first(open_source("bair", tmp_path), sequence_length=2)
    assert batch["images"][0, 0].numpy().tobytes() == features["0/image_aux1/encoded"]


def test_bair_validation_file_is_taken_out_of_train(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("traj_0_to_1", "traj_256_to_511", "traj_512_to_513"):
        _write(tmp_path / "softmotion30_44k" / "train" / f"{name}.tfrecords", [_example(_trajectory(rng))] * 2)
    source = open_source("bair", tmp_path)
    assert source.count("train") == 4 and source.count("val") == 2
    assert [f.rsplit("/", 1)[1] for f in source.files("val")] == ["traj_256_to_511.tfrecords"]
    with pytest.raises(DataError, match="download_and_preprocess_dataset.sh bair"):
        source.count("test")


def test_bair_without_validation_says_what_it_is(tmp_path):
    _write(tmp_path / "train" / "traj_0_to_1.tfrecords", [_example(_trajectory(np.random.default_rng(0)))])
    with pytest.raises(DataError, match="validation is the file traj_256_to_511.tfrecords"):
        open_source("bair", tmp_path).count("val")


def test_files_directly_in_the_folder_serve_every_split(tmp_path):
    _write(tmp_path / "traj_0_to_1.tfrecords", [_example(_trajectory(np.random.default_rng(0)))])
    source = open_source("bair", tmp_path)
    assert source.count("train") == source.count("test") == 1


def test_object_positions_become_distributions(tmp_path):
    features = _trajectory(np.random.default_rng(3), objects=2)
    _write(tmp_path / "test" / "a.tfrecords", [_example(features)])
    source = open_source("bair", tmp_path)
    hparams = _hparams(source, sequence_length=3)
    assert source.spec(hparams)["pix_distribs"].shape == (3, 8, 8, 2)
    distribs = _first(source, sequence_length=3)["pix_distribs"][0].numpy()
    np.testing.assert_allclose(distribs.sum((1, 2)), 1, atol=1e-6)
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8), indexing="ij"), -1)  # (y, x)
    means = np.einsum("thwp,hwc->tpc", distribs, grid)
    expected = np.stack([features[f"{t}/object_pos"] for t in range(3)]).reshape(3, 2, 2)
    np.testing.assert_allclose(means, expected, atol=1e-5)
    with pytest.raises(DataError, match="object_pos: expected crop_size=0"):
        source.spec(_hparams(source, sequence_length=3, crop_size=4))


def test_distributions_at_the_edges_follow_the_flat_index():
    positions = np.array([[1.0, 3.5], [2.25, 0.0], [-0.5, 1.0]], np.float32)  # [T, (y, x)], image 3 x 4
    ours = softmotion.pixel_distributions(positions, 3, 4).numpy()[..., 0]
    expected = np.zeros([3, 3, 4], np.float32)
    expected[0, 1, 3], expected[0, 2, 0] = 0.5, 0.5  # beyond the right edge: the next row
    expected[1, 2, 0] = 0.75  # below the image: dropped
    expected[2, 0, 1] = 0.5  # above the image: dropped
    np.testing.assert_allclose(ours, expected, atol=1e-7)


def test_cartgripper_has_its_own_shape(tmp_path):
    rng = np.random.default_rng(0)
    features = {}
    for t in range(4):
        features[f"{t}/image_view0/encoded"] = rng.integers(0, 256, 48 * 64 * 3, np.uint8).tobytes()
        features[f"{t}/endeffector_pos"] = rng.normal(size=6).astype(np.float32)
        features[f"{t}/action"] = rng.normal(size=3).astype(np.float32)
    _write(tmp_path / "test" / "a.tfrecords", [_example(features)])
    batch = _first(open_source("cartgripper", tmp_path), sequence_length=3)
    assert batch["images"].shape == (1, 3, 48, 64, 3)
    assert batch["states"].shape == (1, 3, 6) and batch["actions"].shape == (1, 2, 3)


def _sequence(rng, length, side=6, channels=1):
    return {
        "images/encoded": [rng.integers(0, 256, side * side * channels, np.uint8).tobytes() for _ in range(length)],
        "sequence_length": [length],
        "height": [side],
        "width": [side],
        "channels": [channels],
    }


@pytest.mark.parametrize("listed", [True, False])
def test_kth_drops_short_sequences(tmp_path, listed):
    rng = np.random.default_rng(0)
    lengths = [7, 3, 5, 9]
    examples = [_example(_sequence(rng, n)) for n in lengths]
    _write(tmp_path / "val" / "sequence_0_to_1.tfrecords", examples[:2])
    _write(tmp_path / "val" / "sequence_2_to_3.tfrecords", examples[2:])
    if listed:
        (tmp_path / "val" / "sequence_lengths.txt").write_text("".join(f"{n}\n" for n in lengths))
    source = open_source("kth", tmp_path)
    hparams = _hparams(source, sequence_length=5)
    assert source.count("val") == 4 and source.count("val", hparams) == 3
    assert source.spec(hparams)["images"].shape == (5, 6, 6, 1)
    batches = list(source.evaluation_batches("val", hparams, 2))
    assert sum(b["valid"].numpy().sum() for b in batches) == 3
    if not listed:  # lengths that had to be read are kept
        assert (tmp_path / "val" / "index.json").exists()
        assert open_source("kth", tmp_path).count("val", hparams) == 3
    with pytest.raises(DataError, match="at least 10 frames .* the longest has 9"):
        source.evaluation_batches("val", _hparams(source, sequence_length=10), 1)


def test_kth_list_that_is_wrong_names_the_record(tmp_path):
    rng = np.random.default_rng(0)
    _write(tmp_path / "val" / "sequence_0_to_0.tfrecords", [_example(_sequence(rng, 3))])
    (tmp_path / "val" / "sequence_lengths.txt").write_text("9\n")
    source = open_source("kth", tmp_path)
    with pytest.raises(tf.errors.OpError) as caught:
        _first(source, "val", sequence_length=5)
    assert "record 0: expected at least 5 frames, received 3" in data_error_line(caught.value)


def _smooth(height, width, shift=0):
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 3 + shift, x * 2, (x + y + shift) % 255], -1).astype(np.uint8)


def test_ucf101_crops_all_frames_alike(tmp_path):
    frames = [video_files.encode_jpeg(_smooth(24, 32), 100)] * 6
    example = {"images/encoded": frames, "sequence_length": [6], "height": [24], "width": [32], "channels": [3]}
    _write(tmp_path / "train" / "sequence_0_to_0.tfrecords", [_example(example)])
    source = open_source("ucf101", tmp_path)
    assert source.spec(_hparams(source, sequence_length=3))["images"].shape == (3, 24, 32, 3)
    hparams = _hparams(source, sequence_length=3, random_crop_size=16)
    batches = [b["images"][0].numpy() for b in source.training_batches("train", hparams, 1, seed=0).take(6)]
    for clip in batches:
        assert clip.shape == (3, 16, 16, 3)
        np.testing.assert_array_equal(clip[0], clip[1])
    assert len({clip.tobytes() for clip in batches}) > 1
    with pytest.raises(ValueError, match="random_crop_size: expected at most 24"):
        source.spec(_hparams(source, sequence_length=3, random_crop_size=25))


@pytest.mark.parametrize("kind", ["shape", "humans"])
def test_sv2p(tmp_path, kind):
    rng = np.random.default_rng(0)
    features = {}
    for t in range(21):
        features[f"image_{t}"] = video_files.encode_jpeg(_smooth(64, 64, t), 100)
        if kind == "shape":
            features[f"state_{t}"] = rng.normal(size=2).astype(np.float32)
            features[f"action_{t}"] = rng.normal(size=2).astype(np.float32)
    _write(tmp_path / kind / "val" / "a.tfrecords", [_example(features)])
    source = open_source("sv2p", tmp_path / kind)
    batch = _first(source, "val", use_state=True)
    length = {"shape": 6, "humans": 20}[kind]
    assert batch["images"].shape == (1, length, 64, 64, 3)
    assert ("states" in batch) == (kind == "shape")
    np.testing.assert_allclose(batch["images"][0, 2].numpy().astype(int), _smooth(64, 64, 2), atol=6)  # JPEG
    with pytest.raises(DataError, match="expected a folder called shape or humans"):
        open_source("sv2p", tmp_path)


def test_google_robot(tmp_path):
    rng = np.random.default_rng(0)
    features = {}
    for t in range(5):
        features[f"move/{t}/image/encoded"] = video_files.encode_jpeg(_smooth(32, 40, t), 100)
        features[f"move/{t}/endeffector/vec_pitch_yaw"] = rng.normal(size=5).astype(np.float32)
        features[f"move/{t}/commanded_pose/vec_pitch_yaw"] = rng.normal(size=5).astype(np.float32)
    _write(tmp_path / "push" / "push_testnovel" / "push_testnovel.tfrecord-00000-of-00005", [_example(features)])
    batch = _first(open_source("google_robot", tmp_path), sequence_length=4, use_state=True, crop_size=32)
    assert batch["images"].shape == (1, 4, 32, 32, 3)
    np.testing.assert_array_equal(batch["actions"][0, 1], features["move/1/commanded_pose/vec_pitch_yaw"])


def test_first_record_that_is_not_understood_is_named(tmp_path):
    _write(tmp_path / "test" / "a.tfrecords", [_example({"something": [1]})])
    for dataset in ("bair", "kth"):
        source = open_source(dataset, tmp_path)
        with pytest.raises(DataError, match="a.tfrecords: record 0: expected a feature"):
            source.spec(_hparams(source))
    features = _trajectory(np.random.default_rng(0))
    features["0/image_aux1/encoded"] = b"x" * 100
    _write(tmp_path / "test" / "a.tfrecords", [_example(features)])
    source = open_source("bair", tmp_path)
    with pytest.raises(DataError, match="record 0: expected a square frame of 3 channels .* received 100 bytes"):
        source.spec(_hparams(source))


def test_missing_step_of_a_later_record_is_named(tmp_path):
    rng = np.random.default_rng(0)
    good, bad = _trajectory(rng), _trajectory(rng)
    del bad["4/image_aux1/encoded"]
    _write(tmp_path / "test" / "a.tfrecords", [_example(good), _example(bad)])
    source = open_source("bair", tmp_path)
    with pytest.raises(DataError, match=r"a\.tfrecords: record 1: key '4/image_aux1/encoded'"):
        verify_source(source, progress=False)
    report = None
    _write(tmp_path / "test" / "a.tfrecords", [_example(good), _example(good)])
    report = verify_source(open_source("bair", tmp_path), progress=False)
    assert report == {"test": {"clips": 2, "frames": 12}}
