"""Time by type of operation, from TensorFlow's own profiler."""

import collections
import os
import tempfile

import tensorflow as tf


def top_operations(call, calls=2, limit=12):
    """[(type of operation, seconds a call, number a call)], the most costly first.

    Seconds of operations that run at the same time add up, so that the sum may be above
    the time that the call takes.

    Args:
      call: a function without arguments that runs what is to be profiled, to its end.
      calls: how often it is run.
      limit: how many types are returned.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(calls):
            call()
        tf.profiler.experimental.stop()
        (path,) = tf.io.gfile.glob(os.path.join(folder, "plugins", "profile", "*", "*.xplane.pb"))
        with tf.io.gfile.GFile(path, "rb") as f:
            space = xplane_pb2.XSpace.FromString(f.read())
    seconds, counts = collections.Counter(), collections.Counter()
    for plane in space.planes:
        if not plane.name.startswith(("/host:CPU", "/device:GPU")):
            continue
        for line in plane.lines:
            for event in line.events:
                kind = plane.event_metadata[event.metadata_id].display_name
                if kind:
                    seconds[kind] += event.duration_ps / 1e12
                    counts[kind] += 1
    return [(kind, value / calls, counts[kind] / calls) for kind, value in seconds.most_common(limit)]
