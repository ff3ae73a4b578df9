"""Video files in and out: GIF, MP4 and the like, folders of frames.

Frames are uint8 arrays [T, H, W, C] with C 1 (grey) or 3 (RGB), values 0..255. Files are
opened through `tf.io.gfile`, so that local, `gs://` and `ram://` paths all work; OpenCV
itself reads local files only, other paths go through a temporary copy.
"""

import contextlib
import io
import itertools
import os
import re
import tempfile

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, ImageSequence

from tfvid.data.folders import names_in
from tfvid.errors import UserError

VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


FPS_LIMITS = (0.01, 1000.0)  # a GIF's frame stays for 655 seconds at most


class VideoError(UserError):
    """A video file or image that cannot be read; the message names the file."""


def check_fps(fps, name="--fps", low=FPS_LIMITS[0]):
    """UserError unless a video can be written at `fps` frames per second; low=0: or read."""
    high = FPS_LIMITS[1]
    if not low <= fps <= high:
        raise UserError(f"{name}: expected a number from {low:g} to {high:g}. Received: {fps}")


def encode_gif(frames, fps):
    """Frames as the bytes of an animated GIF that repeats forever.

    Args:
      frames: uint8 [T, H, W, C], C 1 or 3.
      fps: frames per second; a GIF keeps hundredths of a second a frame.
    """
    frames = _checked_frames(frames)
    images = [Image.fromarray(f[..., 0] if f.shape[-1] == 1 else f) for f in frames]
    duration = max(int(round(100.0 / fps)), 1) * 10  # milliseconds, a multiple of 10
    buffer = io.BytesIO()
    images[0].save(
        buffer, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False
    )
    return buffer.getvalue()


def write_gif(path, frames, fps):
    """Writes frames (uint8 [T, H, W, C]) as an animated GIF."""
    data = encode_gif(frames, fps)
    with tf.io.gfile.GFile(path, "wb") as f:
        f.write(data)


def encode_png(frame):
    """One frame (uint8 [H, W, C]) as the bytes of a PNG file."""
    return _encode_image(".png", frame, [])


def encode_jpeg(frame, quality=95):
    """One frame (uint8 [H, W, C]) as the bytes of a JPEG file of `quality` 1..100."""
    return _encode_image(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])


def write_mp4(path, frames, fps):
    """Writes frames (uint8 [T, H, W, C]) as MP4.

    H.264, which browsers play, where PyAV or OpenCV brings an encoder for it, else
    MPEG-4 part 2. Odd sides are extended by one repeated row or column, since the
    codecs want even ones.
    """
    frames = _checked_frames(frames)
    if frames.shape[-1] == 1:
        frames = np.repeat(frames, 3, axis=-1)
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, "video.mp4")
        if not _write_with_av(local, frames, fps):
            _write_with_opencv(local, frames, fps)
        tf.io.gfile.copy(local, path, overwrite=True)


def read_video(path, max_frames=None):
    """Every frame of a video file, GIF, or folder of frames.

    Args:
      path: a file that OpenCV or Pillow can decode, or a folder of images, which are
        taken in the order of the numbers in their names.
      max_frames: read no more than this many.

    Returns:
      (frames, fps): uint8 [T, H, W, 3] RGB; fps is None where the file has none.

    Raises:
      VideoError: one line that names the file and the reason.
    """
    with open_video(path) as (frames, fps):
        return np.stack(list(itertools.islice(frames, max_frames))), fps


@contextlib.contextmanager
def open_video(path):
    """A video one frame after the other, in constant memory; arguments and errors of `read_video`.

    Yields:
      (iterator of uint8 [H, W, 3] RGB frames, at least one; fps or None).
    """
    path = os.fspath(path)
    if tf.io.gfile.isdir(path):
        yield _folder_frames(path), None
    elif not tf.io.gfile.exists(path):
        raise VideoError(f"{path}: expected a video file or a folder of frames, found nothing")
    elif path.lower().endswith(".gif"):
        yield _read_gif(path)
    else:
        with _local_copy(path) as local, _quiet_opencv():
            capture = cv2.VideoCapture(local, cv2.CAP_FFMPEG)
            try:
                fps = capture.get(cv2.CAP_PROP_FPS)
                yield _opencv_frames(capture, path), (float(fps) if fps > 0 and np.isfinite(fps) else None)
            finally:
                capture.release()


def read_image(path):
    """One image file as uint8 [H, W, 3] RGB, turned as its EXIF says; transparent parts lie over white."""
    return decode_image(read_bytes(path), path)


def decode_image(data, name):
    """The bytes of an image file as uint8 [H, W, 3] RGB; `name` is for the error."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _rgb_over_white(ImageOps.exif_transpose(image))
    except Exception as e:  # Pillow meets damaged files with anything from IndexError to struct.error
        raise VideoError(f"{name}: expected an image, cannot decode it: {_one_line(e)}") from None


def read_bytes(path):
    """A whole file as bytes; a failure is one line that names it."""
    try:
        with tf.io.gfile.GFile(path, "rb") as f:
            return f.read()
    except tf.errors.OpError as e:
        raise VideoError(f"{path}: cannot read it: {e.message}") from None


def frame_files(folder):
    """Names of the images in a folder, in the order of the numbers in them."""
    names = [n for n in names_in(folder) if n.lower().endswith(IMAGE_SUFFIXES)]
    return sorted(names, key=natural_key)


def natural_key(name):
    """Sorting key under which frame2 comes before frame10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name) if part]


def resize_frames(frames, height, width):
    """uint8 [T, H, W, C] -> uint8 [T, height, width, C]: area average down, bicubic up."""
    if frames.shape[1:3] == (height, width):
        return frames
    shrinks = height <= frames.shape[1] and width <= frames.shape[2]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = [cv2.resize(f, (width, height), interpolation=method) for f in frames]
    return np.stack(resized).reshape(len(frames), height, width, frames.shape[-1])


def _checked_frames(frames):
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] not in (1, 3) or frames.dtype != np.uint8 or not frames.size:
        raise UserError(f"expected video frames uint8 [T, H, W, 1 or 3]. Received: {frames.dtype} {list(frames.shape)}")
    return frames


def _encode_image(suffix, frame, options):
    if frame.shape[-1] == 3:
        frame = frame[..., ::-1]  # OpenCV keeps BGR
    ok, data = cv2.imencode(suffix, np.ascontiguousarray(frame), options)
    if not ok:
        raise UserError(f"cannot encode a frame as {suffix}. Received: {frame.dtype} {list(frame.shape)}")
    return data.tobytes()


def _write_with_av(path, frames, fps):
    """Writes H.264 with PyAV; False where it or its encoder is not there."""
    try:
        import av
    except ImportError:
        return False
    from fractions import Fraction

    if "libx264" not in av.codecs_available:
        return False
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return True


def _write_with_opencv(path, frames, fps):
    size = frames.shape[2], frames.shape[1]
    with _quiet_opencv():
        for code in ("avc1", "mp4v"):
            writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), float(fps), size)
            if writer.isOpened():
                break
        else:
            raise UserError("this OpenCV has no MP4 encoder; install the extra 'video' (PyAV) or write GIF")
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
        writer.release()


def _folder_frames(path):
    names = frame_files(path)
    if not names:
        raise VideoError(f"{path}: expected a folder of frames ({', '.join(IMAGE_SUFFIXES)}), found no image")
    shape = None
    for name in names:
        frame = read_image(os.path.join(path, name))
        if shape is not None and frame.shape != shape:
            raise VideoError(
                f"{os.path.join(path, name)}: expected {list(shape)} as in {names[0]}, received {list(frame.shape)}"
            )
        shape = frame.shape
        yield frame


def _read_gif(path):
    data = read_bytes(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            frames, durations = [], []
            for frame in ImageSequence.Iterator(image):
                frames.append(_rgb_over_white(frame))
                durations.append(frame.info.get("duration") or 0)
    except Exception as e:  # as in decode_image
        raise VideoError(f"{path}: expected a GIF, cannot decode it: {_one_line(e)}") from None
    if not frames:
        raise VideoError(f"{path}: expected a GIF, it has no frame")
    shortest = min(durations)  # milliseconds
    if not shortest:
        return iter(frames), None
    # Writers merge equal frames into one of longer duration; they are told apart again.
    repeats = [max(round(d / shortest), 1) for d in durations]
    return itertools.chain.from_iterable(map(itertools.repeat, frames, repeats)), 1000.0 / shortest


def _opencv_frames(capture, path):
    announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    count, shape = 0, None
    while True:
        try:
            ok, frame = capture.read()
        except cv2.error as e:
            raise VideoError(f"{path}: expected a video, cannot decode it: {_one_line(e)}") from None
        if not ok:
            break
        if shape is not None and frame.shape != shape:
            raise VideoError(
                f"{path}: expected frames of one size, {list(shape)}, received {list(frame.shape)} at frame {count}"
            )
        count, shape = count + 1, frame.shape
        yield np.ascontiguousarray(frame[..., ::-1])
    if not count:
        raise VideoError(f"{path}: expected a video that OpenCV can decode, read no frame from it")
    # The number in the header is an estimate in some formats; half of it is no estimate.
    if count < 0.5 * announced:
        raise VideoError(f"{path}: expected {announced:.0f} frames, read {count}: the video is truncated")


@contextlib.contextmanager
def _local_copy(path):
    if "://" not in path:
        yield os.path.abspath(path)  # FFmpeg takes what stands before a colon for a protocol
        return
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, os.path.basename(path))
        tf.io.gfile.copy(path, local)
        yield local


@contextlib.contextmanager
def _quiet_opencv():
    """OpenCV prints its decoders' complaints; ours is one line that names the file."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _rgb_over_white(image):
    """A Pillow image as uint8 [H, W, 3]; a transparent one is laid over white."""
    if image.mode.startswith("I"):  # grey of 16 bits, which Pillow would clip at 255
        grey = np.clip(np.asarray(image, np.int64), 0, 65535)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating point numbers of unknown range")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())
