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
    """Dispatches on what the case's own name in its JSON starts with."""
    name = case.meta["case"]
    kinds = [kind for kind in CHECKS if name == kind or name.startswith(f"{kind}_")]
    assert kinds, f"{case}: expected a name that starts with one of {', '.join(CHECKS)}. Received: {name}"
    CHECKS[kinds[0]](case)
