"""Runs one recorded case of CADDY; section 15 of the specification says what each is."""

from tests.parity import caddy_data, caddy_model, caddy_parts

CHECKS = {
    "layers": caddy_parts.check_layers,
    "loss_functions": caddy_parts.check_loss_functions,
    "networks": caddy_parts.check_networks,
    "params": caddy_model.check_params,
    "forward": caddy_model.check_forward,
    "losses": caddy_model.check_losses,
    "train": caddy_model.check_train,
    "sample": caddy_model.check_sample,
    "fullwidth": caddy_model.check_fullwidth,
    "data": caddy_data.check_data,
    "metrics": caddy_data.check_metrics,
}


def check(case):
    """Dispatches on the case's own name in its JSON."""
    name = case.meta["case"]
    kind = name if name in CHECKS else name.split("_")[0]
    CHECKS[kind](case)
