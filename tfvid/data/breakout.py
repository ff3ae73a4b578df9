"""Real Atari Breakout, played by a player that follows the ball, with its true actions.

Needs `ale-py` (extra `breakout`), a separate program under the GPL-2.0 that brings the
game; nothing of it is part of tfvid.

As in the data set of Playable Video Generation: a frame is the last raw screen of four
emulator frames for which an action is held (15 frames a second), without the mean or
maximum of screens and without sticky actions; rows 1 to 208 of the 210, 160 wide; three
actions. FIRE is part of a move while no ball is in play, so that labels stay clean. A
clip never runs across the end of a game.
"""

import numpy as np

from tfvid.data.preparation import Item, Option, Preparation, parse_size, split_of_fractions
from tfvid.data.video_files import resize_frames
from tfvid.errors import UserError

ACTIONS = ("stay", "right", "left")
SCREEN = (208, 160)  # height and width of the game's part of the screen
_FIRST_ROW = 1  # this emulator draws all one row lower than that of the published videos
_EMULATOR_RATE = 60.0
# Codes of the emulator for the three actions, and for the same with the button pressed.
_CODES, _FIRE_CODES = (0, 3, 4), (1, 11, 12)
_PADDLE_WIDTH, _BALL_WIDTH = 16, 2


class Breakout(Preparation):
    """One item an episode: clips of one player from one seed, with a fixed number of clips.

    Keys: images; actions one-hot [T-1, 3]; action_labels; states [T, 3]: left edge of the
    paddle, left and upper edge of the ball (-1: none) as fractions of the 160 x 208 screen,
    so that a network can take them as they are; rewards.
    """

    NEEDS_SOURCE = False
    ENCODING = "lossless"
    ITEMS_PER_FILE = 8
    OPTIONS = {
        "size": Option("64", "side of the frames, or WIDTHxHEIGHT, in pixels; 160x208: the screen as it is"),
        "num_frames": Option(51200, "frames in all, at least"),
        "clip_length": Option(32, "frames of a clip"),
        "clips_per_episode": Option(8, "clips of one player; an episode is all in one split"),
        "frame_skip": Option(4, "emulator frames from one frame to the next, 60 a second"),
        "val": Option(0.1, "share of the episodes for validation"),
        "test": Option(0.1, "share of the episodes for testing"),
        "seed": Option(0, "everything is drawn from it"),
    }
    DEFAULTS = {"context_frames": 2, "sequence_length": 12, "long_sequence_length": 30, "time_shift": 1}

    def validate(self):
        if parse_size(self.options["size"]) is None:
            raise UserError("--size: expected a side or WIDTHxHEIGHT in pixels. Received: ''")
        for name, least in (("num_frames", 1), ("clip_length", 2), ("clips_per_episode", 1), ("frame_skip", 1)):
            if self.options[name] < least:
                raise UserError(f"--{name}: expected at least {least}. Received: {self.options[name]}")
        split_of_fractions([], self.options["val"], self.options["test"])
        import_emulator()

    def items(self):
        per_episode = self.options["clip_length"] * self.options["clips_per_episode"]
        keys = [f"episode-{i:05d}" for i in range(-(-self.options["num_frames"] // per_episode))]
        splits = split_of_fractions(keys, self.options["val"], self.options["test"], self.options["seed"])
        return [Item(key, splits[key], {"number": i}) for i, key in enumerate(keys)]

    def clips(self, item):
        width, height = parse_size(self.options["size"])
        seed = [self.options["seed"] % 2**32, item.payload["number"]]
        game = Game(np.random.default_rng(seed), self.options["frame_skip"])
        for _ in range(self.options["clips_per_episode"]):
            clip = game.record(self.options["clip_length"])
            clip["images"] = resize_frames(clip["images"], height, width)
            yield clip

    def defaults(self):
        length = self.options["clip_length"]
        lengths = {"sequence_length": min(12, length), "long_sequence_length": min(30, length)}
        return {**self.DEFAULTS, **lengths, "context_frames": min(2, length - 1)}

    def description(self):
        return {
            "source": "Atari Breakout in the Arcade Learning Environment (ale-py)",
            "fps": _EMULATOR_RATE / self.options["frame_skip"],
            "labels": {"action_labels": list(ACTIONS)},
        }


class Game:
    """The emulator and its player; game after game.

    Args:
      rng: `numpy.random.Generator`; everything is drawn from it.
      frame_skip: emulator frames for which an action is held.
    """

    def __init__(self, rng, frame_skip):
        ale_py = import_emulator()
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._emulator = ale_py.ALEInterface()
        self._emulator.setInt("random_seed", int(rng.integers(2**31)))
        self._emulator.setFloat("repeat_action_probability", 0.0)
        self._emulator.loadROM(ale_py.roms.get_rom_path("breakout"))
        self._rng, self._skip = rng, frame_skip
        self._player = Player(rng)
        self._new_game()

    def record(self, length):
        """One clip of `length` frames within one game: {key: array} without resizing."""
        while True:
            frames, states, labels, rewards = [], [], [], []
            reward = 0.0
            while not self._emulator.game_over():
                frames.append(self._screen())
                states.append(self._state())
                rewards.append(reward)
                if len(frames) == length:
                    # The action that leads on from the last frame belongs to the next clip.
                    return _clip(frames, states, labels, rewards)
                label, reward = self._step()
                labels.append(label)
            self._new_game()

    def _new_game(self):
        self._emulator.reset_game()
        self._player.new_volley()
        for _ in range(int(self._rng.integers(4, 120))):  # so that clips begin anywhere in a game
            if self._emulator.game_over():
                self._emulator.reset_game()
            self._step()

    def _step(self):
        state = self._state()
        label = self._player.act(state)
        codes = _FIRE_CODES if state[1] < 0 else _CODES
        reward = 0.0
        for _ in range(self._skip):
            reward += self._emulator.act(codes[label])
        return label, reward

    def _screen(self):
        screen = self._emulator.getScreenRGB()
        return screen[_FIRST_ROW : _FIRST_ROW + SCREEN[0]].copy()

    def _state(self):
        """(left edge of the paddle, left and upper edge of the ball or -1), from the game's memory."""
        memory = self._emulator.getRAM()
        paddle, ball_x, ball_y = int(memory[72]) - 47, int(memory[99]) - 49, int(memory[101]) + 8
        return (paddle, ball_x, ball_y) if memory[101] else (paddle, -1, -1)


class Player:
    """Keeps the paddle below the ball, but not too well.

    It aims beside the ball by an error that is drawn anew for each volley, does nothing
    near enough to its aim, and at times plays at random or sleeps for a while.
    """

    def __init__(self, rng):
        self._rng = rng
        self._spread = rng.uniform(3, 10)  # pixels
        self._wildness = rng.uniform(0.02, 0.12)
        self._lapse = 0.04
        self._left, self._whim = 0, None
        self._falling = False
        self.new_volley()

    def new_volley(self):
        """Draws where beside the ball it aims from now on."""
        self._error = self._rng.normal(0, self._spread)
        self._last_y = None

    def act(self, state):
        """The index in ACTIONS for a state as `Game` gives it."""
        paddle, ball_x, ball_y = state
        if self._last_y is not None and self._falling and ball_y < self._last_y:
            self.new_volley()  # the ball was hit
        self._falling = self._last_y is not None and ball_y > self._last_y
        self._last_y = ball_y
        if self._left == 0:
            draw = self._rng.uniform()
            if draw < self._wildness / 4:  # a burst of moves at random
                self._left, self._whim = int(self._rng.integers(2, 7)), "wild"
            elif draw < self._wildness / 4 + self._lapse / 4:
                self._left, self._whim = int(self._rng.integers(2, 5)), "asleep"
        if self._left:
            self._left -= 1
            return int(self._rng.integers(3)) if self._whim == "wild" else 0
        if ball_x < 0:
            return int(self._rng.choice(3, p=(0.6, 0.2, 0.2)))
        distance = ball_x + _BALL_WIDTH / 2 + self._error - (paddle + _PADDLE_WIDTH / 2)
        if abs(distance) < 6:  # what one step's glide makes up for
            return 0
        return 1 if distance > 0 else 2


def _fractions(states):
    """Pixels -> fractions of the screen; a missing ball stays at -1."""
    height, width = SCREEN
    return np.where(states < 0, -1, states / np.array([width, width, height], np.float32)).astype(np.float32)


def _clip(frames, states, labels, rewards):
    labels = np.array(labels, np.int32)
    return {
        "images": np.stack(frames),
        "states": _fractions(np.array(states, np.float32)),
        "action_labels": labels,
        "actions": np.eye(len(ACTIONS), dtype=np.float32)[labels],
        "rewards": np.array(rewards, np.float32),
    }


def import_emulator():
    """The module `ale_py`; UserError where it is not installed."""
    try:
        import ale_py
        import ale_py.roms
    except ImportError:
        raise UserError("breakout: expected the emulator ale-py; install it with `pip install ale-py`") from None
    return ale_py
