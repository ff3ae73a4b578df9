"""SAVP's losses by name, as the original logs them (spec: base_model.py generator_loss_fn, discriminator_loss_fn)."""

from tfvid.losses.adversarial import gan_loss
from tfvid.losses.latent import kl_normal, kl_standard_normal
from tfvid.losses.reconstruction import cosine_distance, l1_loss, l2_loss, total_variation


def generator_weights(hparams, kl_weight):
    """{loss: weight} of the generator's losses that exist (weight not 0)."""
    h = hparams
    weights = {
        "gen_l1_loss": h.l1_weight,
        "gen_l2_loss": h.l2_weight,
        "gen_state_loss": h.state_weight,
        "gen_tv_loss": h.tv_weight,
        **adversarial_weights(hparams),
        "gen_kl_loss": kl_weight if h.kl_weight else 0,
    }
    return {name: weight for name, weight in weights.items() if not (isinstance(weight, (int, float)) and weight == 0)}


def adversarial_weights(hparams):
    """{loss: weight} of those that ask a discriminator."""
    h, weights = hparams, {}
    for form, kinds in (("gan", h.gan_kinds), ("vae_gan", h.vae_gan_kinds)):
        for kind in kinds:
            weights[f"gen_{kind}_{form}_loss"] = getattr(h, f"{kind}_{form}_weight")
            for norm in ("l2", "cdist"):
                weights[f"gen_{kind}_{form}_feature_{norm}_loss"] = getattr(h, f"{form}_feature_{norm}_weight")
    return {name: weight for name, weight in weights.items() if weight}


def discriminator_weights(hparams):
    """{loss: weight} of the discriminators' losses."""
    h = hparams
    return {
        f"discrim_{kind}_{form}_loss": getattr(h, f"{kind}_{form}_weight")
        for form, kinds in (("gan", h.gan_kinds), ("vae_gan", h.vae_gan_kinds))
        for kind in kinds
    }


def reconstruction_losses(hparams, targets, outputs):
    """Losses of frames, states and flows.

    Args:
      hparams: SAVPHParams.
      targets: {"images" [B, t, H, W, C], "states" [B, t, D]}, the frames that have a loss.
      outputs: {"image" ..., "state" ..., "flows" [B, t, H, W, 2, K]} of the same steps.
    """
    losses = {}
    if hparams.l1_weight:
        losses["gen_l1_loss"] = l1_loss(outputs["image"], targets["images"])
    if hparams.l2_weight:
        losses["gen_l2_loss"] = l2_loss(outputs["image"], targets["images"])
    if hparams.state_weight:
        losses["gen_state_loss"] = l2_loss(outputs["state"], targets["states"])
    if hparams.tv_weight:
        losses["gen_tv_loss"] = total_variation(outputs["flows"])
    return losses


def latent_losses(hparams, posterior, prior=None):
    """The divergence; `posterior`, `prior`: (mu, log_sigma_sq), each [B, t, nz]; no prior: standard normal."""
    if not hparams.kl_weight:
        return {}
    if prior is None:
        return {"gen_kl_loss": kl_standard_normal(*posterior)}
    return {"gen_kl_loss": kl_normal(*posterior, *prior)}


def generator_adversarial_losses(hparams, judged):
    """Losses of the generator that ask a discriminator.

    Args:
      hparams: SAVPHParams.
      judged: {"real", "fake", "enc_real", "enc_fake"}, each {kind: (logits, features)};
        the real ones only where feature matching needs them.
    """
    losses = {}
    for form, kinds, prefix in (("gan", hparams.gan_kinds, ""), ("vae_gan", hparams.vae_gan_kinds, "enc_")):
        for kind in kinds:
            logits, features = judged[f"{prefix}fake"][kind]
            losses[f"gen_{kind}_{form}_loss"] = gan_loss(logits, 1, hparams.gan_loss_type)
            for norm, distance in (("l2", l2_loss), ("cdist", cosine_distance)):
                if getattr(hparams, f"{form}_feature_{norm}_weight"):
                    real = judged[f"{prefix}real"][kind][1]
                    losses[f"gen_{kind}_{form}_feature_{norm}_loss"] = sum(
                        distance(fake, true) for fake, true in zip(features, real, strict=True)
                    )
    return losses


def discriminator_losses(hparams, judged):
    """{discrim_<kind>_[vae_]gan_loss: real against 1 plus generated against 0}; `judged` as above."""
    losses = {}
    for form, kinds, prefix in (("gan", hparams.gan_kinds, ""), ("vae_gan", hparams.vae_gan_kinds, "enc_")):
        for kind in kinds:
            real, fake = judged[f"{prefix}real"][kind][0], judged[f"{prefix}fake"][kind][0]
            losses[f"discrim_{kind}_{form}_loss"] = gan_loss(real, 1, hparams.gan_loss_type) + gan_loss(
                fake, 0, hparams.gan_loss_type
            )
    return losses
