"""Adam and AdamW that several optimisers of one model share under any strategy.

Keras' own optimisers do not fit models with several of them: they reduce gradients
inside `apply`, so that clipping and the test for finite values would see one replica
only, they cannot skip an update, and their epsilon is placed in one way.
"""

import contextlib

import numpy as np
import tensorflow as tf

from tfvid.errors import UserError

_slots_wanted = [True]


@contextlib.contextmanager
def without_slots():
    """Within it an `Adam` is made without its moments, for models that only generate.

    Such an optimiser takes no memory and cannot `apply`.
    """
    _slots_wanted.append(False)
    try:
        yield
    finally:
        _slots_wanted.pop()


class Adam:
    """Adam with the epsilon of either family and an update that can be skipped.

    form="keras" (TensorFlow 1, Keras): lr * sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps)
    form="torch" (PyTorch):             lr / (1-b1^t) * m / (sqrt(v / (1-b2^t)) + eps)

    A variable whose gradient is None keeps its value, its moments and its step count.

    Args:
      variables: the Keras variables to train; slots are created at once, so construct
        it under the strategy's scope.
      beta1, beta2, epsilon: as above.
      form: "keras" or "torch".
      weight_decay: 0 for none.
      decoupled: False adds `weight_decay * variable` to the gradient (L2); True
        multiplies the variable by `1 - lr * weight_decay` first (AdamW).
      name: names the slots.
    """

    def __init__(
        self, variables, *, beta1=0.9, beta2=0.999, epsilon=1e-8, form="keras", weight_decay=0.0, decoupled=False, name
    ):
        if form not in ("keras", "torch"):
            raise ValueError(f"expected form keras or torch. Received: form={form!r}")
        for key, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= beta < 1:  # 1 would divide by zero
                raise UserError(f"hyper-parameter {key}: expected a value >= 0 and < 1. Received: {key}={beta!r}")
        self.name, self.targets = name, list(variables)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.form, self.weight_decay, self.decoupled = form, weight_decay, decoupled
        self._index = {id(v): i for i, v in enumerate(self.targets)}
        dtypes = {_raw(v).dtype for v in self.targets}
        if len(dtypes) != 1:
            raise ValueError(f"expected variables of one float type. Received: {sorted(d.name for d in dtypes)}")
        self.dtype = dtypes.pop()

        def slot(variable, kind):
            value = _raw(variable)
            return tf.Variable(tf.zeros(value.shape, value.dtype), trainable=False, name=f"{name}/{kind}")

        self.m, self.v, self.counts = [], [], None
        if not _slots_wanted[-1]:
            return
        self.m = [slot(v, "m") for v in self.targets]
        self.v = [slot(v, "v") for v in self.targets]
        # One count for each variable: those without a gradient do not advance.
        self.counts = tf.Variable(
            tf.zeros([len(self.targets)], tf.int64),
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name=f"{name}/counts",
        )

    def state(self):
        """{"counts": variable, "m": {path: variable}, "v": {path: variable}}, for checkpoints.

        Empty for one made `without_slots`.
        """
        if self.counts is None:
            return {}
        paths = [t.path for t in self.targets]
        return {"counts": self.counts, "m": dict(zip(paths, self.m)), "v": dict(zip(paths, self.v))}

    def apply(self, gradients, variables, lr, ok=True):
        """Updates `variables`; call it in a replica context with gradients already reduced.

        Args:
          gradients: one tensor or None for each variable; dense.
          variables: a subset of the variables given to the constructor.
          lr: learning rate, a number or scalar tensor.
          ok: boolean scalar tensor; where false nothing changes, whatever the gradients hold.
            Or a list of them, one for each gradient that is not None: then each variable
            is updated as soon as its own gradient is there.
        """
        if self.counts is None:
            raise RuntimeError(f"optimizer {self.name!r} was made without slots, for generation only")
        pairs = [(self._index[id(v)], g) for g, v in zip(gradients, variables, strict=True) if g is not None]
        if not pairs:
            return
        indices = [i for i, _ in pairs]
        grads = [tf.convert_to_tensor(g) for _, g in pairs]
        each = isinstance(ok, list)
        oks = [tf.convert_to_tensor(x) for x in ok] if each else [tf.convert_to_tensor(ok)] * len(pairs)
        t = tf.gather(self.counts, indices) + 1
        factors = self._factors(lr, t, oks)
        advance = tf.scatter_nd([[i] for i in indices], tf.cast(tf.stack(oks), tf.int64), [len(self.targets)])
        self.counts.assign_add(advance)
        context = tf.distribute.get_replica_context()
        context.merge_call(self._update_all, args=(grads, oks, factors), kwargs={"indices": indices, "chained": not each})

    def _factors(self, lr, t, oks):
        """For each variable, whose step number is in `t` and flag in `oks`, the scalars of its update.

        [rate, beta1^t, beta2^t, epsilon, beta1, beta2, decay]. A skipped update has rate 0, beta 1 and (in
        `_update_one`) gradient 0, which change nothing, to the last bit. A tf.cond would wait for the accelerator at
        every variable.
        """
        rate, power1, power2, epsilon = (self._torch_factors if self.form == "torch" else self._keras_factors)(lr, t)
        shared = (self._constant(self.beta1), self._constant(self.beta2))
        shared = (*shared, self._constant(lr) * self._constant(self.weight_decay))
        values = tf.stack([rate, power1, power2, epsilon, *(x * tf.ones_like(rate) for x in shared)], axis=1)
        skipped = tf.constant([0, 0, 0, self.epsilon, 1, 1, 0], self.dtype)
        return [tf.where(ok, value, skipped) for ok, value in zip(oks, tf.unstack(values))]

    def _keras_factors(self, lr, t):
        """(rate, beta1^t, beta2^t, epsilon), each [variables]; the kernel corrects the bias."""
        t = tf.cast(t, self.dtype)
        ones = tf.ones_like(t)
        power1, power2 = (tf.pow(self._constant(beta), t) for beta in (self.beta1, self.beta2))
        return self._constant(lr) * ones, power1, power2, self._constant(self.epsilon) * ones

    def _torch_factors(self, lr, t):
        """The same; the rate holds the corrections of the bias, in float64 as PyTorch's are.

        m / (sqrt(v / c2) + eps) = sqrt(c2) * m / (sqrt(v) + sqrt(c2) * eps). The kernel
        weighs a gradient with 1 - beta as rounded beta gives it, PyTorch with the rounded
        1 - beta: for 0.999 in float32 these differ by 1.3e-5, for which c1 and c2 make up.
        """
        t = tf.cast(t, tf.float64)

        def correction(beta):
            rounded = np.asarray(beta, self.dtype.as_numpy_dtype)
            return (1 - tf.pow(tf.constant(beta, tf.float64), t)) * (float(1 - rounded) / (1 - beta))

        root = tf.sqrt(correction(self.beta2))
        rate = tf.cast(lr, tf.float64) if tf.is_tensor(lr) else tf.constant(lr, tf.float64)
        rate, epsilon = rate * root / correction(self.beta1), self.epsilon * root
        zeros = tf.zeros_like(t, self.dtype)
        return tf.cast(rate, self.dtype), zeros, zeros, tf.cast(epsilon, self.dtype)

    def _constant(self, value):
        """A number or tensor in the variables' type; `tf.cast` alone would round numbers to float32."""
        return tf.cast(value, self.dtype) if tf.is_tensor(value) else tf.constant(value, self.dtype)

    def _update_all(self, strategy, grads, oks, factors, indices, chained):
        done = []
        for i, grad, ok, each in zip(indices, grads, oks, factors):
            # One after another where all are there at once: each has a copy of its gradient.
            with tf.control_dependencies(done):
                update = strategy.extended.update(
                    _raw(self.targets[i]), self._update_one, args=(self.m[i], self.v[i], grad, ok, each), group=True
                )
            done = [update] if chained and isinstance(update, tf.Operation) else []

    def _update_one(self, variable, m, v, grad, ok, each):
        rate, power1, power2, epsilon, beta1, beta2, decoupled_decay = tf.unstack(each)
        g = tf.cast(grad, self.dtype)
        g = tf.where(ok, g, tf.zeros([], self.dtype))
        decay = []
        if self.weight_decay and self.decoupled:
            decay = [variable.assign(variable * (1 - decoupled_decay))]
        elif self.weight_decay:
            g = g + tf.where(ok, self._constant(self.weight_decay), 0) * variable
        with tf.control_dependencies(decay):
            return tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=m.handle, v=v.handle, beta1_power=power1, beta2_power=power2,
                lr=rate, beta1=beta1, beta2=beta2, epsilon=epsilon, grad=g,
            )


def half_squares(gradients):
    """Half the sum of squares of each gradient that is not None, squared and summed in one pass over memory."""
    return [tf.nn.l2_loss(g) for g in gradients if g is not None]


def global_norm(halves):
    """The Euclidean norm of all gradients together, from their `half_squares`."""
    return tf.sqrt(2 * tf.add_n(halves)) if halves else tf.constant(0.0)


def _raw(variable):
    """The TensorFlow variable behind a Keras one."""
    return getattr(variable, "value", variable) if not isinstance(variable, tf.Variable) else variable


