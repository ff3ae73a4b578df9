"""Checks the recorded cases of the SAVP project; which kind a case is, its JSON and arrays tell."""

from tests.parity import savp_baselines, savp_datasets, savp_model, savp_pieces


def check(case):
    """Runs the checks that fit the case."""
    if "pieces" in case.meta:
        savp_pieces.check(case)
    elif "cases" in case.meta:
        savp_datasets.check(case)
    elif case.meta.get("model", "savp").split()[0] != "savp":
        savp_baselines.check(case)
    else:
        savp_model.check(case)
