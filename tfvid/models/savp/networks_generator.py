"""SAVP's generator: encoders of the latents and rollouts of the cell."""

import keras
from keras import ops

from tfvid.layers.bound import BoundLayer
from tfvid.layers.rollout import repeat_batch, rollout
from tfvid.models.savp.networks_cell import SAVPCell
from tfvid.models.savp.networks_encoder import LatentEncoder

# What a rollout can give for each step, in the cell's terms.
OUTPUTS = ("image", "state", "flows", "masks", "candidates", "pix_distrib", "pix_candidates")
# What the next step is fed.
FED = ("image", "state", "pix_distrib")


class Generator(BoundLayer):
    """Everything that the generator's optimiser trains.

    Args:
      shape: (H, W, C) of a frame.
      actions, states: sizes, 0 for none.
      hparams: SAVPHParams.
    """

    def __init__(self, shape, actions, states, hparams):
        super().__init__("generator")
        self.hparams = hparams
        with self.scope():
            self.encoder = self.prior = None
            if hparams.nz:
                self.encoder = LatentEncoder("encoder", shape[-1], actions, hparams, hparams.use_e_rnn)
            if hparams.learn_prior:
                self.prior = LatentEncoder("prior", shape[-1], actions, hparams, recurrent=True)
            with keras.name_scope("rnn"):
                self.cell = SAVPCell(shape, actions, states, hparams)
            self.initial_state_weights = []
            if hparams.learn_initial_state:
                shapes = [shape for group in self.cell.state_shapes() for shape in group]
                self.initial_state_weights = [InitialState(i, shape) for i, shape in enumerate(shapes)]

    def initial_states(self, batch):
        """Recurrent states before the first step, in the cell's order: learnt ones, or None for zeros."""
        groups = self.cell.state_shapes()
        if not self.initial_state_weights:
            return [None] * len(groups)
        learnt = iter(self.initial_state_weights)
        return [
            tuple(ops.broadcast_to(self.read(next(learnt).initial_state)[None], (batch, *shape)) for shape in group)
            for group in groups
        ]

    def bind(self, keep=("image",)):
        """Returns step(carry, inputs, known) of the cell, see `SAVPCell.bind`.

        Args:
          keep: outputs to give beside those that the next step is fed; see OUTPUTS.
        """
        step = self.cell.bind()
        names = {*keep, *FED}

        def filtered(carry, inputs, known):
            outputs, carry = step(carry, inputs, known)
            return {k: v for k, v in outputs.items() if k in names}, carry

        return filtered

    def unroll(self, step, inputs, latents, ground_truth, horizon, shared=0, keep=("image",)):
        """One or more rollouts on the same inputs, as one batch.

        Args:
          step: what `bind` returns.
          inputs: {"image" [B, >= C, H, W, C'], "action" [B, >= steps, A],
            "state" [B, >= C, D], "pix_distrib" [B, >= C, H, W, P]}, what there is.
          latents: one entry a rollout: [B, steps, nz], or None for nz=0.
          ground_truth: one entry a rollout: bool [B, horizon - 1] that says where step
            context_frames + i is fed the truth (inputs then need all frames), or None: never.
          horizon: frames predicted after the context; steps = context_frames + horizon - 1.
          shared: first steps in which all rollouts coincide, fewer than the context's;
            computed once.
          keep: outputs to return, see OUTPUTS.

        Returns:
          One {output: [B, steps, ...]} a rollout.
        """
        context, copies = self.hparams.context_frames, len(latents)
        joint = None if latents[0] is None else ops.concatenate(latents, axis=0)
        frames, carry, y = inputs, self._start(inputs), None
        common, own = [], []
        for t in range(context):
            if t == shared:
                frames, carry = repeat_batch((frames, carry), copies)
            current = {k: v[:, t] for k, v in frames.items()}
            if joint is not None:
                current["z"] = (latents[0] if t < shared else joint)[:, t]
            y, carry = step(carry, current, self._known(frames, t))
            (common if t < shared else own).append({k: v for k, v in y.items() if k in keep})
        future = self._future(step, carry, y, frames, joint, ground_truth, horizon, keep)
        return _assemble(common, own, future, copies)

    def _start(self, inputs):
        first = inputs["image"][:, 0]
        count = self.hparams.last_frames
        carry = {"images": [first] * count, "states": self.initial_states(ops.shape(first)[0])}
        if "pix_distrib" in inputs:
            carry["pix_distribs"] = [inputs["pix_distrib"][:, 0]] * count
        return carry

    def _known(self, inputs, t):
        """Frame 0 and the backgrounds of step t (the last context frame from t = context - 1 on)."""
        h, known = self.hparams, {"first": inputs["image"][:, 0]}
        last = h.context_frames - 1
        if h.context_images_background:
            times = list(range(h.context_frames))
        else:
            times = [0] * h.first_image_background + [last] * h.last_image_background
            times += [min(t, last)] * h.last_context_image_background
        for key in ("image", "pix_distrib"):
            if key in inputs:
                known[key] = [inputs[key][:, i] for i in times]
        return known

    def _future(self, step, carry, last, frames, latents, ground_truth, horizon, keep):
        """The steps after the context, fed with their own predictions or, where told, the truth."""
        context, length = self.hparams.context_frames, horizon - 1
        known = self._known(frames, context)
        fed = [k for k in FED if k in frames]
        sequence = {}
        if "action" in frames:
            sequence["action"] = _time_first(frames["action"][:, context : context + length])
        if latents is not None:
            sequence["z"] = _time_first(latents[:, context:])
        if any(mask is not None for mask in ground_truth) and length:
            masks = [_never(frames, length, len(ground_truth)) if m is None else m for m in ground_truth]
            sequence["feed"] = _time_first(masks[0] if len(masks) == 1 else ops.concatenate(masks, axis=0))
            for key in fed:
                sequence[f"true_{key}"] = _time_first(frames[key][:, context : context + length])

        def advance(state, now):
            carry, previous = state
            current = {k: _choose(now, k, previous[k]) for k in fed}
            current.update({k: now[k] for k in ("action", "z") if k in now})
            y, carry = step(carry, current, known)
            return {k: v for k, v in y.items() if k in keep}, (carry, {k: y[k] for k in fed})

        start = (carry, {k: last[k] for k in fed})
        outputs, _ = rollout(advance, start, sequence, length)
        return outputs


class InitialState(BoundLayer):
    """initial_state_{i}/initial_state, without batch axis."""

    def __init__(self, index, shape):
        super().__init__(f"initial_state_{index}")
        self.initial_state = self.weight("initial_state", shape, "zeros")


def _choose(now, key, previous):
    """The truth where `feed` says so, else the previous prediction."""
    if "feed" not in now:
        return previous
    feed = ops.reshape(now["feed"], (-1,) + (1,) * (len(previous.shape) - 1))
    return ops.where(feed, ops.cast(now[f"true_{key}"], previous.dtype), previous)


def _assemble(common, own, future, copies):
    """One {output: [B, steps, ...]} a rollout, from steps of all rollouts together.

    Args:
      common: outputs of the first steps, the same for all rollouts; list of {output: [B, ...]}.
      own: outputs of the rest of the context; list of {output: [copies * B, ...]}, not empty.
      future: {output: [time, copies * B, ...]} or None.
      copies: number of rollouts.
    """
    results = [{} for _ in range(copies)]
    for key in own[0]:
        rest = ops.stack([y[key] for y in own], axis=0)
        if future is not None:
            rest = ops.concatenate([rest, future[key]], axis=0)
        for result, part in zip(results, _split(rest, copies)):
            if common:
                part = ops.concatenate([ops.stack([y[key] for y in common], axis=0), part], axis=0)
            result[key] = ops.swapaxes(part, 0, 1)
    return results


def _split(x, copies):
    """[time, copies * B, ...] -> list of [time, B, ...]."""
    return [x] if copies == 1 else ops.split(x, copies, axis=1)


def _never(frames, length, copies):
    return ops.zeros((ops.shape(frames["image"])[0] // copies, length), "bool")


def _time_first(x):
    return ops.swapaxes(x, 0, 1)
