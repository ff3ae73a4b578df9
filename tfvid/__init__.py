"""tfvid: video prediction and generation as Keras models on TensorFlow 2."""

import os as _os

__version__ = "0.1.0"


def _keep_memory():
    """Lets TensorFlow keep the memory of large tensors instead of asking the system for it, zeroed, at every operation.

    Read by TensorFlow when it makes its first device. Its own limit, 64 GiB, is raised to what the machine has.
    `TF_CPU_ALLOCATOR_USE_BFC=false` in the environment leaves TensorFlow as it is.
    """
    _os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    if hasattr(_os, "sysconf"):
        physical = _os.sysconf("SC_PHYS_PAGES") * _os.sysconf("SC_PAGE_SIZE") >> 20
        _os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(max(64 << 10, physical)))


_keep_memory()
