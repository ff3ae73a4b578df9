"""The terms of CADDY's loss and what is logged beside them, under the original's names."""

from keras import ops

from tfvid.losses.reconstruction import mean_absolute
from tfvid.models.caddy import losses
from tfvid.models.perceptual import features_of

# Name of a term -> (what its weight is called, its logged weighted value).
TERMS = {
    "observations_rec": ("reconstruction_loss_lambda", "observations_rec"),
    "perceptual_loss": ("perceptual_loss_lambda", "perceptual_loss"),
    "states_rec": ("states_rec_lambda", "states_rec"),
    "hidden_states_rec": ("hidden_states_rec_lambda", "hidden_states_rec"),
    "entropy": ("entropy_lambda", "entropy"),
    "action_directions_kl": ("action_directions_kl_lambda", "action_directions_kl_divergence"),
    "action_mutual_information": ("action_mutual_information_lambda", "action_mutual_information"),
    "action_state_distribution_kl": ("action_state_distribution_kl_lambda", "action_state_distribution_kl"),
}


def weight_of(hparams, name, pretraining):
    """The weight of a term in a phase: a number, or five for the perceptual loss."""
    key = TERMS[name][0] + ("_pretraining" if pretraining else "")
    return getattr(hparams, key, 0.0)  # hidden_states_rec has no weight in the main phase


def reconstruction_terms(
    outputs, observations, vgg=None, component_weights=None, foreground_weight=0.0, evaluate=None
):
    """Observation and perceptual terms at the three resolutions.

    Args:
      outputs: of a forward pass.
      observations: [B, T, H, W, 3 S] in [-1, 1].
      vgg: VGG-19 features, or None for no perceptual term. Frames of all steps go
        through it as one batch, the targets without a gradient.
      component_weights: weights of (total, level 1 to 4); None: ones.
      foreground_weight: w; in the L1 a pixel counts 1 + w times the squared difference
        of the real one to the batch's mean frame. 0, as in the original: 1. Small things, a paddle of
        10 pixels, are otherwise so little that the best is to leave them out.
      evaluate: how the perceptual loss is evaluated, `perceptual.loss_by_slices`; None: on all frames at once.

    Returns:
      terms {"observations_rec", "perceptual_loss"}, information to log.
    """
    information, l1s, weighted, totals = {}, [], [], []

    def perceptual(images, targets):  # -> the weighted loss, its components
        found, wanted = features_of(vgg, images, targets)
        components = losses.perceptual_components(wanted, found)
        weights = component_weights or (1.0,) * len(components)
        return sum(w * c for w, c in zip(weights, components, strict=True)), components

    foreground = losses.foreground(observations, outputs["images"][0].shape[1]) if foreground_weight else None
    for r, images in enumerate(outputs["images"]):
        count, size = images.shape[1], images.shape[2:4]
        targets = losses.resize_targets(losses.real_frames(observations, count), size)
        errors = targets - images
        if foreground is not None:
            errors = errors * (1 + foreground_weight * losses.resize_targets(foreground, size))
        l1s.append(mean_absolute(errors))
        information[f"observations_rec_loss_r{r}"] = l1s[-1]
        if vgg is None:
            continue
        loss, components = (evaluate or _at_once)(perceptual, images, targets)
        weighted.append(loss)
        totals.append(components[0])
        information[f"perceptual_loss_r{r}"] = components[0]
        for level, component in enumerate(components):
            information[f"perceptual_loss_r{r}_l{level}"] = component
    terms = {"observations_rec": _mean(l1s)}
    information["avg_observations_rec_loss"] = terms["observations_rec"]
    if vgg is not None:
        terms["perceptual_loss"] = _mean(weighted)
        information["avg_perceptual_loss"] = _mean(totals)
    return terms, information


def state_terms(outputs, pretraining):
    """Terms of states, hidden states and action distributions, but for the mutual information."""
    terms = {
        "states_rec": losses.states_mse(outputs["states"], outputs["reconstructed_states"]),
        "entropy": losses.entropy_of_logits(outputs["action_logits"]),
        "action_directions_kl": losses.directions_kl(outputs["directions_mean"], outputs["directions_variance"]),
        "action_state_distribution_kl": losses.states_distribution_kl(
            outputs["reconstructed_states_mean"], outputs["reconstructed_states_variance"],
            ops.stop_gradient(outputs["states_mean"]), outputs["states_variance"],
        ),
    }
    if pretraining:
        terms["hidden_states_rec"] = losses.hidden_states_mse(
            outputs["hidden_states"], outputs["reconstructed_hidden_states"]
        )
    return terms


def total_loss(terms, hparams, pretraining):
    """Sum of weight times term; terms of weight 0 are left out, so that none can spoil the gradient.

    Returns:
      The total, and information: each term and its weighted value.
    """
    total, information = 0.0, {}
    for name, value in terms.items():
        weight = weight_of(hparams, name, pretraining)
        if name == "perceptual_loss":  # its weights are applied component by component
            weight = 0.0 if not (any(weight) if isinstance(weight, tuple) else weight) else _overall(weight)
        component = weight * value if weight else ops.zeros_like(value)
        information[f"loss_component_{TERMS[name][1]}"] = component
        if name not in ("observations_rec", "perceptual_loss"):
            information[f"{name}_loss"] = value
        if weight:
            total = total + component
    return total, {**information, "loss": total}


def component_weights(weight):
    """The weights within the perceptual term: five given ones, or None for equal ones."""
    return weight if isinstance(weight, tuple) else None


def _overall(weight):
    return 1.0 if isinstance(weight, tuple) else weight


def statistics(outputs, centroids):
    """What is logged of a forward pass and not optimised."""
    def magnitude(key):
        return ops.mean(ops.abs(outputs[key]))

    samples, variations = outputs["action_samples"], outputs["action_variations"]
    result = {
        "samples_entropy": losses.entropy(samples),
        "action_distribution_entropy": losses.entropy(ops.mean(samples, axis=(0, 1))[None]),
        "states_magnitude": magnitude("states"),
        "hidden_states_magnitude": magnitude("hidden_states"),
        "centroids_mean_magnitude": ops.mean(ops.abs(ops.convert_to_tensor(centroids.centroids))),
        "action_directions_reconstruction_error": ops.mean(
            ops.square(outputs["directions_mean"] - outputs["reconstructed_directions_mean"])
        ),
        "reconstructed_action_directions_kl_loss": losses.directions_kl(
            outputs["reconstructed_directions_mean"], outputs["reconstructed_directions_variance"]
        ),
        "average_centroids_distance": centroids.distances(),
        "average_action_variations_norm_l2": ops.mean(ops.sqrt(ops.sum(ops.square(variations), axis=-1))),
        "action_variations_mean": ops.mean(variations),
    }
    for prefix in ("", "reconstructed_"):
        for kind in ("mean", "variance"):
            result[f"{prefix}action_directions_{kind}_magnitude"] = magnitude(f"{prefix}directions_{kind}")
    return result


def _at_once(function, images, targets):
    return function(*(ops.reshape(x, (-1, *x.shape[2:])) for x in (images, targets)))


def _mean(values):
    return sum(values[1:], values[0]) / len(values)
