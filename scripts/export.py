"""Writes a trained model for TensorFlow Serving.

    python scripts/export.py --checkpoint=runs/demo/savp --export_dir=exported/savp

writes exported/savp/<version>/: a SavedModel that loads without tfvid. README.md, "Serving",
has the server's command and a request.
"""

from absl import flags

from tfvid import cli

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "run folder of a trained model", required=True)
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "folder of all versions (a server's base path)", required=True)
_VERSION = flags.DEFINE_integer("version", None, "number of this version; default: one more than the highest there")
_WARMUP = flags.DEFINE_bool("warmup", True, "write the server's warm-up requests, after running each once")
_BATCHING = flags.DEFINE_bool("batching", False, "a seed for each clip: for a server that joins requests into batches")
_STEP = flags.DEFINE_integer("step", None, "training step of the checkpoint; default: the last one")


def main():
    from tfvid.serving.export import export
    from tfvid.serving.saved_model import read_signatures
    from tfvid.training.run_folder import RunFolder

    run = RunFolder.open(_CHECKPOINT.value)
    model = run.load_model(step=_STEP.value, training_networks=False)
    path = export(model, _EXPORT_DIR.value, _VERSION.value, run.model_name, _WARMUP.value, _BATCHING.value)
    print(path)
    for name, signature in read_signatures(path).items():
        print(f"  {name}")
        for kind in ("inputs", "outputs"):
            for key, tensor in signature[kind].items():
                print(f"    {kind[:-1]:6} {key}: {tensor['dtype']} {tensor['shape']}")


if __name__ == "__main__":
    cli.run(main)
