"""Playing a model: a session that remembers what was played, a script, a window."""

import dataclasses
import json
import os
import time

import cv2
import numpy as np
import tensorflow as tf

from tfvid.data.video_files import encode_png, write_gif, write_mp4
from tfvid.errors import UserError

LAST_FRAME_SECONDS = 0.2  # how long the last frame of a timecoded video stays


@dataclasses.dataclass
class Recording:
    """What was played since a reset.

    Attributes:
      frames: uint8 [H, W, 3] each, the start frame first.
      actions: 0-based, one fewer than frames.
      times: seconds since the reset at which each frame appeared.
    """

    frames: list
    actions: list
    times: list


class Session:
    """One game after the other.

    Args:
      player: `tfvid.serving.players.Player`.
      starts: uint8 [K, N, H, W, 3]; game k starts from `starts[k % K]`.
      clock: function that gives seconds; tests pass their own.
    """

    def __init__(self, player, starts, clock=time.monotonic):
        if starts.shape[2:4] != player.size:
            raise UserError(
                f"expected start frames of {player.size[0]} x {player.size[1]} pixels."
                f" Received: {starts.shape[2]} x {starts.shape[3]}"
            )
        self.player, self._starts, self._clock = player, starts, clock
        self.game = -1
        self.latency = 0.0  # seconds that the last step took
        self.next_game()

    def next_game(self):
        """Begins the next game; returns its start frame."""
        self.game += 1
        return self.restart()

    def restart(self):
        """Begins the same game again; returns its start frame."""
        frames = self._starts[self.game % len(self._starts)]
        self._state = self.player.start(frames)
        self._begin = self._clock()
        self.recording = Recording([frames[-1]], [], [0.0])
        return frames[-1]

    def press(self, action, variation=None):
        """Plays one action (0-based); returns the new frame, uint8 [H, W, 3]."""
        begin = time.perf_counter()
        frame, self._state = self.player.step(self._state, action, variation)
        self.latency = time.perf_counter() - begin
        self.recording.frames.append(frame)
        self.recording.actions.append(int(action))
        self.recording.times.append(self._clock() - self._begin)
        return frame

    def warm_up(self):
        """Traces and runs the first step, so that the player does not wait for it."""
        self.player.step(self._state, 0)


def save(recording, folder, fps=5.0):
    """Writes what was played.

        frames/00000.png ...  every frame
        video.gif, video.mp4  at `fps`
        actions.mp4           with the action drawn in
        timecoded.mp4         in the player's own time
        play.json             actions (1-based, as the keys), seconds, fps

    Returns:
      The folder.
    """
    tf.io.gfile.makedirs(os.path.join(folder, "frames"))
    frames = np.stack(recording.frames)
    for i, frame in enumerate(frames):
        with tf.io.gfile.GFile(os.path.join(folder, "frames", f"{i:05d}.png"), "wb") as f:
            f.write(encode_png(frame))
    write_gif(os.path.join(folder, "video.gif"), frames, fps)
    write_mp4(os.path.join(folder, "video.mp4"), frames, fps)
    write_mp4(os.path.join(folder, "actions.mp4"), with_actions(frames, recording.actions), fps)
    write_mp4(os.path.join(folder, "timecoded.mp4"), timecoded(frames, recording.times, fps), fps)
    played = {
        "actions": [a + 1 for a in recording.actions], "seconds": [round(t, 4) for t in recording.times], "fps": fps,
    }
    with tf.io.gfile.GFile(os.path.join(folder, "play.json"), "w") as f:
        f.write(json.dumps(played, indent=2) + "\n")
    return folder


def timecoded(frames, times, fps):
    """Frames repeated so that each stays as long as it did for the player; the last one 0.2 s.

    Whole frames are counted and what is left is carried on to the next frame.
    """
    durations = [*np.diff(times), LAST_FRAME_SECONDS]
    repeats, carried = [], 0.0
    for seconds in durations:
        wanted = seconds * fps + carried
        repeats.append(int(wanted + 1e-9))
        carried = wanted - repeats[-1]
    if not any(repeats):
        repeats[-1] = 1
    return np.repeat(frames, repeats, axis=0)


def with_actions(frames, actions, least=128):
    """Frames with the number of the action that led to them in a corner, enlarged to at least `least` pixels."""
    factor = max(1, -(-least // min(frames.shape[1:3])))
    drawn = []
    for frame, label in zip(frames, ["start", *(str(a + 1) for a in actions)]):
        image = np.ascontiguousarray(np.repeat(np.repeat(frame, factor, 0), factor, 1))
        for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
            cv2.putText(image, label, (6, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, width, cv2.LINE_AA)
        drawn.append(image)
    return np.stack(drawn)


def next_folder(parent):
    """`parent`/<n> with the first free number; nothing that is there is touched."""
    number = 0
    while tf.io.gfile.exists(os.path.join(parent, f"{number:04d}")):
        number += 1
    return os.path.join(parent, f"{number:04d}")


def parse_script(text, actions_count):
    """"1,1,2,3" -> [0, 0, 1, 2]: keys as in the window, 0 for the next game, -1 here."""
    keys = [part.strip() for part in text.split(",") if part.strip()]
    if not keys or not all(k.isdecimal() and int(k) <= actions_count for k in keys):
        raise UserError(f"--script: expected actions from 1 to {actions_count}, or 0, joined by commas. Received: {text!r}")
    return [int(k) - 1 for k in keys]


def run_script(session, actions, output_dir, fps):
    """Plays `actions` without a screen; -1 begins the next game. Returns the folders written."""
    folders = []
    for action in actions:
        if action >= 0:
            session.press(action)
            continue
        if session.recording.actions:
            folders.append(save(session.recording, next_folder(output_dir), fps))
        session.next_game()
    if session.recording.actions:
        folders.append(save(session.recording, next_folder(output_dir), fps))
    return folders


WINDOW = "tfvid play"
HELP = "1..9 act   0 next game   r again   s save   q quit"


def run_window(session, output_dir, fps, zoom=0):
    """Plays in an OpenCV window until q or Escape; what was played is saved at the end of each game."""
    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
    except cv2.error:
        raise UserError(
            "no window can be opened here (no display, or opencv-python-headless); use --web or --script"
        ) from None
    zoom = zoom or max(1, 640 // max(session.player.size))
    folders, frame = [], session.recording.frames[-1]
    while True:
        cv2.imshow(WINDOW, _view(frame, session, zoom))
        key = cv2.waitKey(20) & 0xFF
        closed = cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) < 1
        if key in (ord("q"), 27) or closed or key in (ord("0"), ord("r"), ord("s")):
            if session.recording.actions:
                folders.append(save(session.recording, next_folder(output_dir), fps))
            if key in (ord("q"), 27) or closed:
                break
            if key != ord("s"):
                frame = session.next_game() if key == ord("0") else session.restart()
        elif ord("1") <= key <= ord("9") and key - ord("1") < session.player.actions_count:
            frame = session.press(key - ord("1"))
    cv2.destroyAllWindows()
    return folders


def _view(frame, session, zoom):
    """The frame enlarged, over a line with the keys; BGR for OpenCV."""
    image = np.repeat(np.repeat(frame[..., ::-1], zoom, 0), zoom, 1)
    bar = np.full((28, image.shape[1], 3), 32, np.uint8)
    text = f"{len(session.recording.actions)} steps  {1000 * session.latency:.0f} ms   {HELP}"
    cv2.putText(bar, text, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
    return np.concatenate([image, bar])


def interpolate(session, networks, first, second, factors, steps):
    """Frames of each mixture of two actions, from the same start.

    Args:
      session: a `Session`; it is restarted for every mixture.
      networks: the model's `CaddyNetworks`, which know the centroids.
      first, second: actions, 0-based.
      factors: mixtures in [0, 1].
      steps: steps of each.

    Returns:
      uint8 [len(factors), steps + 1, H, W, 3], the start frame first.
    """
    rows = []
    for factor in factors:
        session.restart()
        action, variation = networks.interpolation(first, second, float(factor))
        for _ in range(steps):
            session.press(action, np.asarray(variation))
        rows.append(np.stack(session.recording.frames))
    return np.stack(rows)


def save_interpolation(rows, factors, folder, fps):
    """Writes interpolation.gif (one row a mixture) and <mixture>/<step>.png; returns the GIF's path."""
    for row, factor in zip(rows, factors):
        name = os.path.join(folder, f"{factor:.2f}")
        tf.io.gfile.makedirs(name)
        for i, frame in enumerate(row):
            with tf.io.gfile.GFile(os.path.join(name, f"{i:05d}.png"), "wb") as f:
                f.write(encode_png(frame))
    path = os.path.join(folder, "interpolation.gif")
    write_gif(path, np.concatenate(list(rows), axis=1), fps)
    return path
