"""Loads a SavedModel and runs it where tfvid cannot be imported.

Usage: load_alone.py MODEL_DIR REQUEST.npz SIGNATURE OUTPUT.npz
"""

import sys


class Refuse:
    """Refuses tfvid, in the checkout or installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tfvid":
            raise ImportError("refused: " + name)


def main(model, request, signature, output):
    sys.meta_path.insert(0, Refuse())
    import numpy as np
    import tensorflow as tf

    loaded = tf.saved_model.load(model)
    with np.load(request) as f:
        inputs = {k: tf.constant(v) for k, v in f.items()}
    results = loaded.signatures[signature](**inputs)
    assert not [m for m in sys.modules if m.split(".")[0] == "tfvid"]
    np.savez(output, **{k: v.numpy() for k, v in results.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
