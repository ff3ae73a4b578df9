"""Divergences of latent distributions: pure functions, summed over the latent, averaged over the rest."""

from keras import ops


def kl_standard_normal(mu, log_sigma_sq):
    """KL(N(mu, exp(log_sigma_sq)) || N(0, I)). mu, log_sigma_sq: [..., nz]."""
    terms = 1 + log_sigma_sq - ops.square(mu) - ops.exp(log_sigma_sq)
    return -0.5 * ops.mean(ops.sum(terms, axis=-1))


def kl_normal(mu1, log_sigma1_sq, mu2, log_sigma2_sq):
    """KL(N(mu1, exp(log_sigma1_sq)) || N(mu2, exp(log_sigma2_sq))). All [..., nz]."""
    spread = (ops.exp(log_sigma1_sq) + ops.square(mu1 - mu2)) / (2 * ops.exp(log_sigma2_sq))
    return ops.mean(ops.sum((log_sigma2_sq - log_sigma1_sq) / 2 + spread - 0.5, axis=-1))
