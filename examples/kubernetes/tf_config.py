"""Prints TF_CONFIG of this pod of an Indexed Job: examples/kubernetes/train.yaml says how it is used.

Reads JOB_COMPLETION_INDEX, which Kubernetes sets, and WORKERS, SERVICE and PORT (2222) of the manifest. The Job has
the Service's name, so that pod i is called <SERVICE>-<i>.
"""

import json
import os
import sys


def tf_config(environment):
    """The JSON text.

    Raises:
      ValueError: a variable is missing or is no number.
    """
    for name in ("JOB_COMPLETION_INDEX", "WORKERS", "SERVICE"):
        if name not in environment:
            raise ValueError(f"{name}: expected in the environment, found none")
    service, port = environment["SERVICE"], int(environment.get("PORT", "2222"))
    workers = [f"{service}-{i}.{service}:{port}" for i in range(int(environment["WORKERS"]))]
    index = int(environment["JOB_COMPLETION_INDEX"])
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})


if __name__ == "__main__":
    try:
        print(tf_config(os.environ))
    except ValueError as e:
        sys.exit(f"error: {e}")
