"""scripts/train.py with the toy model in MODELS, for tests that need a process of their own."""

import runpy
import sys

from tfvid import cli

cli.import_tensorflow_quietly()

from tfvid import models  # noqa: E402

models.MODELS["toy"] = "tests.toy_model:Toy"
sys.argv[0] = "scripts/train.py"
runpy.run_path("scripts/train.py", run_name="__main__")
