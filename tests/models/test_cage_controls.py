"""Placing features: grid, groups, placements, and the JSON file."""

import json

import numpy as np
import pytest

from tfvid.errors import UserError
from tfvid.models.cage import control_file
from tfvid.models.cage.controls import Controls, Grid, Group, outline, selection_pictures

GRID = Grid(rows=4, columns=6, height=32, width=48)
PAIR = Group(0, ((1, 1), (1, 2)))


def placed(controls, frame=0):
    return {target: p.source for target, p in controls.frames[frame].items()}


def test_tiles_in_a_box():
    assert GRID.tiles_in_box((8, 8, 24, 16)) == ((1, 1), (1, 2))
    assert GRID.tiles_in_box((9, 8, 20, 16)) == ((1, 1), (1, 2))  # 7/8 of one tile, half of the other
    assert GRID.tiles_in_box((9, 9, 11, 11)) == ((1, 1),)  # less than half of any: the fullest
    assert GRID.tiles_in_box((100, 100, 110, 110)) == ()


def test_tiles_of_a_mask():
    mask = np.zeros((32, 48))
    mask[8:16, 16:28] = 255
    assert GRID.tiles_of_mask(mask) == ((1, 2), (1, 3))
    assert GRID.tiles_of_mask(np.zeros((32, 48))) == ()


def test_moving_goes_to_the_nearest_tiles():
    controls = Controls(GRID, 2)
    controls.move(0, PAIR, dx=5, dy=-3)
    assert placed(controls) == {(1, 2): (1, 1), (1, 3): (1, 2)}
    controls.move_to(1, PAIR, 24, 28)  # the middle was at (16, 12)
    assert placed(controls, 1) == {(3, 2): (1, 1), (3, 3): (1, 2)}


def test_placing_follows_the_rule_of_the_demos():
    controls = Controls(GRID, 1)
    # Anchor (12, 8): corners go to (24.4 - 12 + 8, 17) = (20.4, 17) and (28.4, 17).
    controls.place(0, PAIR, 24.4, 17)
    assert placed(controls) == {(2, 2): (1, 1), (2, 3): (1, 2)}


def test_what_leaves_the_frame_is_left_out_and_later_ones_lie_over():
    controls = Controls(GRID, 1)
    controls.move(0, PAIR, dx=-16)
    assert placed(controls) == {(1, 0): (1, 2)}
    controls.move(0, Group(1, ((0, 0),)), dy=8)
    assert controls.frames[0][1, 0].image == 1
    controls.clear(0)
    assert placed(controls) == {}
    with pytest.raises(UserError, match="expected a frame from 0 to 0. Received: 3"):
        controls.move(3, PAIR)


def test_arrays_hold_the_features_of_the_source_tiles():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 4, 6, 3)).astype(np.float32)
    controls = Controls(GRID, 2)
    controls.move(1, PAIR, dy=8)
    controls.move(1, Group(1, ((0, 5),)))
    values, masks = controls.arrays(features)
    assert values.shape == (2, 4, 6, 3) and masks.shape == (2, 4, 6, 1)
    assert not masks[0].any() and masks[1].sum() == 3
    np.testing.assert_array_equal(values[1, 2, 1], features[0, 1, 1])
    np.testing.assert_array_equal(values[1, 0, 5], features[1, 0, 5])


def test_pictures_show_the_tiles():
    image = np.full((32, 48, 3), 200, np.uint8)
    controls = Controls(GRID, 1)
    controls.move(0, PAIR, dx=8)
    (picture,) = controls.pictures([image])
    assert picture[12, 20].tolist() == [200, 200, 200] and picture[2, 2].tolist() == [24, 24, 24]
    assert picture[8, 20].tolist() == [70, 130, 255]
    selected = selection_pictures(GRID, [image], [PAIR])
    assert selected[0, 8, 9].tolist() == [230, 50, 50] and image[8, 9].tolist() == [200, 200, 200]
    outline(picture, GRID, [], (0, 0, 0))


DOCUMENT = {
    "images": [{"file": "a.png"}, {"clip": 2}],
    "initial": [0],
    "num_frames": 5,
    "objects": [
        {"image": 0, "box": [8, 8, 24, 16], "path": [[16, 12], None, [24, 12]]},
        {"image": 1, "tiles": [[0, 0]], "keyframes": {"1": [4, 4], "3": [20, 4]}},
        {"image": 1, "mask": "m.png", "stay": [0, 1]},
    ],
    "num_steps": 3,
}


def mask_of(path):
    assert path.endswith("m.png")
    mask = np.zeros((32, 48))
    mask[24:, 40:] = 255
    return mask


def test_a_file_becomes_controls(tmp_path):
    path = tmp_path / "controls.json"
    path.write_text(json.dumps(DOCUMENT))
    plan = control_file.read(str(path))
    assert plan.options == {"num_steps": 3} and plan.initial == (0,) and plan.images[1].split == "test"
    groups = plan.groups(GRID, mask_of)
    assert [g.tiles for g in groups] == [((1, 1), (1, 2)), ((0, 0),), ((3, 5),)]
    controls = plan.controls(GRID, groups)
    assert sorted(controls.frames[0]) == [(1, 1), (1, 2), (3, 5)]
    assert sorted(controls.frames[1]) == [(0, 0), (3, 5)]
    assert sorted(controls.frames[2]) == [(0, 1), (1, 2), (1, 3)]  # half way between the keyframes
    assert sorted(controls.frames[3]) == [(0, 2)] and controls.frames[4] == {}


def changed(**changes):
    return {**DOCUMENT, **changes}


def with_object(**changes):
    item = {"image": 0, "box": [0, 0, 8, 8], "path": [], **changes}
    return changed(objects=[{k: v for k, v in item.items() if v is not None}])


@pytest.mark.parametrize(
    "document, message",
    [
        ({"images": []}, "expected the key num_frames"),
        (changed(num_frames=0), "num_frames: expected a whole number from 1 to 4096. Received: 0"),
        (changed(frames=3), "expected keys of .* Received: frames"),
        (changed(images={}), "images: expected a list"),
        (changed(images=[{"file": "a", "clip": 1}]), r"images\[0\]: expected either file or clip"),
        (changed(images=[{"clip": -1}]), r"images\[0\].clip: expected a whole number >= 0"),
        (changed(images=[{"clip": 1, "split": "best"}]), r"images\[0\].split: expected train, val or test"),
        (changed(initial=[2]), r"initial\[0\]: expected a whole number from 0 to 1. Received: 2"),
        (changed(gamma="much"), "gamma: expected a number. Received: much"),
        (changed(num_samples=0), "num_samples: expected at least 1"),
        (with_object(image=5), r"objects\[0\].image: expected a whole number from 0 to 1"),
        (with_object(tiles=[[0, 0]]), r"objects\[0\]: expected one of box, mask, tiles"),
        (with_object(path=None), r"objects\[0\]: expected one of path, keyframes, stay"),
        (with_object(box=[8, 0, 8, 8]), r"objects\[0\].box: expected .x0, y0, x1, y1. with x0 < x1"),
        (with_object(box=[0, 0, 8]), r"objects\[0\].box: expected 4 numbers"),
        (with_object(path=[[float("inf"), 0]]), r"objects\[0\].path\[0\]: expected a number"),
        (with_object(path=[[1e300, 0]]), r"objects\[0\].path\[0\]: expected numbers up to 1048576"),
        (with_object(box=[0, 0, 8, 10**400]), r"objects\[0\].box: expected a number of 64 bits"),
        (changed(seed=2**70), "seed: expected a whole number of 64 bits"),
        (with_object(path=[[1]]), r"objects\[0\].path\[0\]: expected 2 numbers"),
        (with_object(path=[None] * 6), "at most num_frames=5 places. Received: 6 places"),
        (with_object(path=None, keyframes={"7": [0, 0]}), "expected frames from 0 to 4. Received: 7"),
        (with_object(path=None, keyframes={}), "expected at least one frame"),
        (with_object(path=None, stay=[3, 1]), "first, last. with 0 <= first <= last <= 4"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(document, message):
    with pytest.raises(UserError, match=message) as caught:
        control_file.parse(document, "controls.json")
    assert str(caught.value).startswith("controls.json: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "selection, message",
    [
        ({"box": [100, 100, 110, 110]}, r"objects\[0\].box: expected a part of the frame of 48 x 32 pixels"),
        ({"box": None, "tiles": [[4, 0]]}, r"objects\[0\].tiles: expected rows below 4 and columns below 6"),
    ],
)
def test_selections_outside_the_frame(selection, message):
    plan = control_file.parse(with_object(**selection))
    with pytest.raises(UserError, match=message):
        plan.groups(GRID, mask_of)
