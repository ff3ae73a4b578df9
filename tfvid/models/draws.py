"""The only source of randomness in a training step or a sample.

Networks take noise as an argument. A step asks a `Draws` object for it by name, so the
same step runs on fresh noise (`StatelessDraws`) or on noise recorded elsewhere
(`RecordedDraws`, in the parity tests).
"""

import zlib

import numpy as np
import tensorflow as tf

PHILOX = 1  # its number among TensorFlow's generators


class StatelessDraws:
    """Noise that is a function of (seed, step, replica, stream, name) alone.

    A run is therefore reproducible, resumes exactly, and replicas differ. A name may
    be drawn once only: two draws under one name would be the same numbers.

    Args:
      seed: Python integer or int tensor; the run's or the sample's seed.
      step: the global step, an int tensor or integer.
      replica: the replica's index, an int tensor or integer.
      stream: a word that keeps train, validation and generation apart.
    """

    def __init__(self, seed, step=0, replica=0, stream="train"):
        if isinstance(seed, int):
            seed = np.int64(seed)  # any Python integer of 64 bits, negative ones included
        seed = tf.cast(seed, tf.int64)
        key = tf.stack([seed, tf.cast(zlib.crc32(stream.encode()), tf.int64)])
        for part in (step, replica):
            key = tf.random.fold_in(key, tf.cast(part, tf.int64), alg="philox")
        # What `tf.random.fold_in` makes of a name depends on the key through this number alone.
        self._folded = tf.random.fold_in(key, tf.constant(0, tf.int64), alg="philox")[0]
        self._names = set()

    def key(self, name):
        """The int64 [2] seed of the draw called `name`."""
        if name in self._names:
            raise ValueError(f"expected each draw once, received a second one called {name!r}")
        self._names.add(name)
        return tf.stack([self._folded, tf.constant(zlib.crc32(name.encode()), tf.int64)])

    def scope(self, name):
        """The same draws with `name/` put before every name."""
        return _Scope(self, name)

    def normal(self, name, shape, dtype="float32"):
        """Standard normal noise."""
        return self._drawn(tf.raw_ops.StatelessRandomNormalV2, name, shape, dtype)

    def uniform(self, name, shape, dtype="float32"):
        """Uniform noise in [0, 1)."""
        return self._drawn(tf.raw_ops.StatelessRandomUniformV2, name, shape, dtype)

    def _drawn(self, operation, name, shape, dtype):
        # As tf.random.stateless_normal and _uniform, to the last bit, in a tenth of their operations.
        key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=self.key(name))
        return operation(shape=tf.cast(shape, tf.int32), key=key, counter=counter, alg=PHILOX, dtype=dtype)

    def integers(self, name, shape, maxval, dtype="int32", minval=0):
        """Uniform integers in [minval, maxval); the bounds may be tensors that broadcast to `shape`."""
        minval, maxval = tf.cast(minval, dtype), tf.cast(maxval, dtype)
        if minval.shape.rank == 0 and maxval.shape.rank == 0:
            return tf.random.stateless_uniform(
                shape, self.key(name), minval=minval, maxval=maxval, dtype=dtype, alg="philox"
            )
        share = self.uniform(name, shape, "float64")
        return minval + tf.cast(tf.floor(share * tf.cast(maxval - minval, tf.float64)), dtype)

    def bernoulli(self, name, shape, probability):
        """Booleans that are true with `probability` (a number or a tensor)."""
        probability = tf.cast(probability, tf.float32)
        return self.uniform(name, shape) < probability

    def permutation(self, name, size):
        """A random permutation of 0 .. size-1, int32."""
        return tf.argsort(self.uniform(name, [size]), stable=True)


class RecordedDraws:
    """Noise that was recorded: a dictionary from name to array.

    Every method checks the recorded shape against the asked one and converts to the
    asked type. Names that were never asked for are listed by `unused()`.
    """

    def __init__(self, values):
        self._values = dict(values)
        self._asked = set()

    def scope(self, name):
        """The same draws with `name/` put before every name."""
        return _Scope(self, name)

    def unused(self):
        """Names that no draw asked for, sorted."""
        return sorted(set(self._values) - self._asked)

    def _get(self, name, shape, dtype):
        if name not in self._values:
            raise KeyError(f"no recorded draw {name!r}; recorded: {', '.join(sorted(self._values))}")
        self._asked.add(name)
        value = np.asarray(self._values[name])
        if shape is not None and tuple(value.shape) != tuple(int(s) for s in shape):
            raise ValueError(f"draw {name!r}: expected shape {tuple(shape)}, recorded {value.shape}")
        return tf.constant(value, dtype=dtype)

    def normal(self, name, shape, dtype="float32"):
        return self._get(name, shape, dtype)

    def uniform(self, name, shape, dtype="float32"):
        return self._get(name, shape, dtype)

    def integers(self, name, shape, maxval, dtype="int32", minval=0):
        return self._get(name, shape, dtype)

    def bernoulli(self, name, shape, probability):
        return self._get(name, shape, "bool")

    def permutation(self, name, size):
        return self._get(name, [size], "int32")


class _Scope:
    def __init__(self, draws, prefix):
        self._draws, self._prefix = draws, prefix

    def scope(self, name):
        return _Scope(self._draws, f"{self._prefix}/{name}")

    def __getattr__(self, kind):
        method = getattr(self._draws, kind)
        return lambda name, *args, **kwargs: method(f"{self._prefix}/{name}", *args, **kwargs)
