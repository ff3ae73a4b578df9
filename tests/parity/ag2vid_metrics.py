"""The recorded metrics of AG2Vid's evaluation."""

import numpy as np

from tfvid.metrics import distributions


def check_metrics(case):
    """Frechet distance, Inception scores, precision and recall, class statistics of one recorded case."""
    a = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in case.arrays.items()}
    reference, generated = a["frechet/ref"], a["frechet/gen"]
    distance = distributions.frechet_distance_of(_statistics(reference), _statistics(generated))
    np.testing.assert_allclose(distance, a["frechet/out"], rtol=1e-4)
    score = distributions.InceptionScore(a["is/probs"].shape[1])
    score.update(a["is/probs"])
    np.testing.assert_allclose(score.result(), a["is/video_is"], rtol=1e-4)
    found = (score.result(), score.intra_entropy(), score.inter_entropy())
    np.testing.assert_allclose(found, a["quant/i_intra_inter"], rtol=1e-4)
    splits = distributions.inception_score_of_splits(a["is/probs"], 5)
    np.testing.assert_allclose(splits, a["is/image_is_mean_std"], rtol=1e-4)
    precision, recall = distributions.precision_recall(a["prd/eval"], a["prd/ref"], len(a["prd/precision"]))
    np.testing.assert_allclose(precision, a["prd/precision"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(recall, a["prd/recall"], rtol=1e-4, atol=1e-6)
    found = [distributions.f_beta(precision, recall, beta) for beta in (8, 1 / 8)]
    np.testing.assert_allclose(found, a["prd/f8"], rtol=1e-4)
    distance = distributions.class_mean_distance(reference, a["quant/cat_ref"], generated, a["quant/cat_gen"])
    np.testing.assert_allclose(distance, a["quant/get_fid"], rtol=1e-4)


def _statistics(features):
    """In two uneven batches, as a stream gives them."""
    statistics = distributions.GaussianStatistics(features.shape[1])
    cut = len(features) // 3
    statistics.update(features[:cut])
    statistics.update(features[cut:])
    return statistics
