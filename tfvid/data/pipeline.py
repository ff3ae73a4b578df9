"""Streams of batches: a pure function of (seed, step), read record by record.

Order of training. Let G be the batch of all workers together. Element j of step s is
element p = s * G + j of an endless list whose epoch p // N is a permutation, drawn from
(seed, epoch), of the N records: batches run across the ends of epochs. Worker i of n
holds elements [i * b, (i + 1) * b) of each step, b = G / n, so that the workers' batches
put side by side are the batch of one process with batch size G. The random start of a
clip is drawn from (seed, p). Resuming at a step therefore costs nothing.

Order of evaluation. Records in the order of their files, in batches of which worker i of
n takes every n-th from the i-th on; a batch is the same whoever computes it.
"""

import numpy as np
import tensorflow as tf

from tfvid.data.formats import cut_clip
from tfvid.data.index import record_at
from tfvid.data.records import require_data
from tfvid.errors import UserError

# Words that keep the streams' random numbers apart.
_ORDER, _START, _CROP, _EVALUATION = 0x6F72646572, 0x7374617274, 0x63726F70, 0x6576616C

_LOCAL_READS, _REMOTE_READS = 4, 32  # records read at once
OFFSETS = ("hashed", "middle", "first")

# All functions here are made of TensorFlow operations: to rewrite them would only cost time.
_as_it_is = tf.autograph.experimental.do_not_convert


def training_batches(fmt, layout, options, index, batch_size, seed, start_step=0, shard=(0, 1)):
    """An endless `tf.data.Dataset` of {key: [batch_size, ...]}; see the module's text.

    Args:
      fmt, layout, options: how records become clips.
      index: the records that are long enough.
      batch_size: of this worker.
      seed: any Python integer.
      start_step: step of the first batch.
      shard: (i, n), worker i of n.
    """
    worker, workers = _checked_shard(shard)
    count = len(index)
    seed = np.int64(np.uint64(seed % 2**64).astype(np.int64))
    draws_start = options.time_shift > 0 or options.force_time_shift

    def position(q):
        """This worker's q-th element -> its place in the list of all workers."""
        return q // batch_size * (batch_size * workers) + worker * batch_size + q % batch_size

    def record_number(p):
        order = tf.stack([seed ^ _ORDER, p // count])
        return p, tf.random.experimental.index_shuffle(p % count, order, tf.constant(count - 1, tf.int64))

    def clip(p, record, name):
        start_key, crop_key = tf.stack([seed ^ _START, p]), tf.stack([seed ^ _CROP, p])
        start = (lambda shifts: _draw(start_key, shifts)) if draws_start else tf.zeros_like
        return cut_clip(fmt, layout, options, record, name, start, crop_key)

    first, last = start_step * batch_size, np.iinfo(np.int64).max // (workers + 1)
    places = tf.data.Dataset.range(first, last).map(_as_it_is(lambda q: record_number(position(q))))
    return (
        _clips(places, index, clip).batch(batch_size, drop_remainder=True).prefetch(4).with_options(_stream_options())
    )


def evaluation_batches(
    fmt, layout, options, index, batch_size, limit=None, shard=(0, 1), offsets="hashed", shuffle=False
):
    """A finite `tf.data.Dataset`: every record once, in order; the last batch is padded.

    Beside the clip's keys a batch has `index` [B] int64, the clip's number in this
    order (-1: padding), and `valid` [B] bool, False for padding, which repeats a clip.

    Args:
      limit: only the first so many clips.
      offsets: where clips start for which `force_time_shift` asks random starts:
        "hashed" a fixed draw for each clip, "middle", or "first". Others start at 0.
      shuffle: a fixed permutation of the records instead of their order.
    """
    worker, workers = _checked_shard(shard)
    if offsets not in OFFSETS:
        raise UserError(f"offsets: expected one of {', '.join(OFFSETS)}. Received: {offsets!r}")
    order = np.arange(len(index), dtype=np.int64)
    if shuffle:
        order = np.random.default_rng(_EVALUATION).permutation(order)
    order = order[:limit]
    places = padded_places(len(order), batch_size, worker, workers)

    def start_of(number):
        if not options.force_time_shift or offsets == "first":
            return tf.zeros_like
        if offsets == "middle":
            return lambda shifts: shifts // 2
        return lambda shifts: _draw(tf.stack([np.int64(_EVALUATION), number]), shifts)

    def clip(place, record, name):
        crop_key = tf.stack([np.int64(_CROP), place])
        return cut_clip(fmt, layout, options, record, name, start_of(place), crop_key)

    records = tf.constant(order)

    def with_place(place):
        return place, records[place]

    flags = tf.data.Dataset.from_tensor_slices(places)
    clips = _clips(tf.data.Dataset.from_tensor_slices(np.maximum(places[0], 0)).map(_as_it_is(with_place)), index, clip)

    def join(clip, flag):
        number, valid = flag
        return {**clip, "index": number, "valid": valid}

    joined = tf.data.Dataset.zip((clips, flags)).map(_as_it_is(join))
    return joined.batch(batch_size, drop_remainder=True).prefetch(2).with_options(_stream_options())


def padded_places(count, batch_size, worker, workers):
    """(numbers [M] int64, valid [M] bool) of one worker's batches; padding has number -1."""
    batches = -(-count // batch_size)
    numbers = np.full(batches * batch_size, -1, np.int64)
    numbers[:count] = np.arange(count)
    numbers = numbers.reshape(batches, batch_size)[worker::workers].reshape(-1)
    return numbers, numbers >= 0


def frame_counts(fmt, index):
    """Frames of every record: reads them all once, decodes none. int64 [N]."""
    return np.fromiter(each_record(index, fmt.count_frames).as_numpy_iterator(), np.int64, len(index))


def each_record(index, function):
    """`function(content, name)` of every record in order, as a `tf.data.Dataset`."""
    numbers = tf.data.Dataset.range(len(index)).map(_as_it_is(lambda i: (i, i)))
    return _clips(numbers, index, lambda _, record, name: function(record, name)).with_options(_stream_options())


def _clips(places, index, clip):
    """(place, record number) -> clip(place, content, name), in order, several at once."""
    files = tf.constant(index.files)
    file, number, offset, size = (tf.constant(a) for a in (index.file, index.number, index.offset, index.size))
    remote = "://" in index.files[0]
    reads = _REMOTE_READS if remote else _LOCAL_READS

    def read(place, i):
        content = record_at(files[file[i]], offset[i], size[i])
        return content.map(_as_it_is(lambda record: (place, i, record)))

    def checked(place, i, record):
        name = tf.strings.join([files[file[i]], ": record ", tf.strings.as_string(number[i])])
        message = [name, " at byte ", offset[i], ": its content does not match its checksum: the file is corrupt"]
        # Every tf.train.Example begins with this byte; what else is there makes the parser
        # raise without a name, and with bytes in its message that Python cannot decode.
        example = (tf.strings.substr(record, 0, 1) == b"\n") | (tf.strings.length(record) == 0)
        checks = [
            require_data(tf.strings.length(record) > 0, message),
            require_data(example, [name, ": expected a tf.train.Example, received other bytes"]),
        ]
        with tf.control_dependencies(checks):
            return clip(place, tf.identity(record), tf.identity(name))

    dataset = places.interleave(
        _as_it_is(read), cycle_length=reads, block_length=1, num_parallel_calls=reads, deterministic=True
    )
    return dataset.map(_as_it_is(checked), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _draw(key, shifts):
    """A whole number in [0, shifts] from an int64 [2] key."""
    return tf.random.stateless_uniform(
        [], key, minval=tf.constant(0, tf.int64), maxval=shifts + 1, dtype=tf.int64, alg="philox"
    )


def _checked_shard(shard):
    worker, workers = shard
    if not 0 <= worker < workers:
        raise UserError(f"shard: expected (i, n) with 0 <= i < n. Received: {tuple(shard)}")
    return worker, workers


def _stream_options():
    options = tf.data.Options()
    # Sharding is the stream's own; TensorFlow's would cut it a second time.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    return options
