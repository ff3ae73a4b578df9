"""Adam and AdamW that several optimisers of one model share under any strategy.

Keras' own optimisers do not fit models with several of them: they reduce gradients
inside `apply`, so that clipping and the test for finite values would see one replica
only, they cannot skip an update, and their epsilon is placed in one way.
"""

import tensorflow as tf


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
        self.name, self.targets = name, list(variables)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.form, self.weight_decay, self.decoupled = form, weight_decay, decoupled
        self._index = {id(v): i for i, v in enumerate(self.targets)}

        def slot(variable, kind):
            value = _raw(variable)
            return tf.Variable(tf.zeros(value.shape, value.dtype), trainable=False, name=f"{name}/{kind}")

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
        """{"counts": variable, "m": {path: variable}, "v": {path: variable}}, for checkpoints."""
        paths = [t.path for t in self.targets]
        return {"counts": self.counts, "m": dict(zip(paths, self.m)), "v": dict(zip(paths, self.v))}

    def apply(self, gradients, variables, lr, ok=True):
        """Updates `variables`; call it in a replica context with gradients already reduced.

        Args:
          gradients: one tensor or None for each variable; dense.
          variables: a subset of the variables given to the constructor.
          lr: learning rate, a number or scalar tensor.
          ok: boolean tensor; where false nothing changes.
        """
        pairs = [(self._index[id(v)], g) for g, v in zip(gradients, variables, strict=True) if g is not None]
        if not pairs:
            return
        advance = [0] * len(self.targets)
        for i, _ in pairs:
            advance[i] = 1
        self.counts.assign_add(tf.constant(advance, tf.int64) * tf.cast(ok, tf.int64))
        counts = tf.convert_to_tensor(self.counts)
        indices = [i for i, _ in pairs]
        grads = [tf.convert_to_tensor(g) for _, g in pairs]
        context = tf.distribute.get_replica_context()
        context.merge_call(
            self._update_all, args=(grads, tf.convert_to_tensor(lr), counts, tf.convert_to_tensor(ok)),
            kwargs={"indices": indices},
        )

    def _update_all(self, strategy, grads, lr, counts, ok, indices):
        for i, grad in zip(indices, grads):
            variable = _raw(self.targets[i])
            strategy.extended.update(
                variable, self._update_one, args=(self.m[i], self.v[i], grad, lr, counts, ok, i), group=True
            )

    def _update_one(self, variable, m, v, grad, lr, counts, ok, index):
        dtype = variable.dtype

        def update():
            t = tf.cast(counts[index], dtype)
            rate = tf.cast(lr, dtype)
            g = tf.cast(grad, dtype)
            value = tf.convert_to_tensor(variable)
            if self.weight_decay and not self.decoupled:
                g = g + tf.cast(self.weight_decay, dtype) * value
            decay = []
            if self.weight_decay and self.decoupled:
                decay = [variable.assign(value * (1 - rate * tf.cast(self.weight_decay, dtype)))]
            power1 = tf.pow(tf.cast(self.beta1, dtype), t)
            power2 = tf.pow(tf.cast(self.beta2, dtype), t)
            epsilon = tf.cast(self.epsilon, dtype)
            if self.form == "torch":
                # m / (sqrt(v/c) + eps) = sqrt(c) * m / (sqrt(v) + sqrt(c) * eps)
                epsilon = epsilon * tf.sqrt(1 - power2)
            with tf.control_dependencies(decay):
                tf.raw_ops.ResourceApplyAdam(
                    var=variable.handle, m=m.handle, v=v.handle, beta1_power=power1, beta2_power=power2,
                    lr=rate, beta1=tf.cast(self.beta1, dtype), beta2=tf.cast(self.beta2, dtype),
                    epsilon=epsilon, grad=g,
                )
            return tf.constant(True)

        return tf.cond(ok, update, lambda: tf.constant(False))


def global_norm(gradients):
    """The Euclidean norm of all gradients together; None entries count as zero."""
    squares = [tf.reduce_sum(tf.square(g)) for g in gradients if g is not None]
    return tf.sqrt(tf.add_n(squares)) if squares else tf.constant(0.0)


def _raw(variable):
    """The TensorFlow variable behind a Keras one."""
    return getattr(variable, "value", variable) if not isinstance(variable, tf.Variable) else variable


