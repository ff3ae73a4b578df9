"""Large kernels with few outputs, such as the last one of a network that paints a frame, on the CPU.

A CPU's matrix product wants more than three columns: 7x7 taps of 32 channels to RGB run at an eighth of its speed. The
results of 2 x 2 neighbours depend on 8x8 inputs together, so they are one result of four times the channels of a
convolution of stride 2, whose kernel is the given one at four places between zeros: a third more multiplications in a
third of the time. Rounding aside it is the same convolution.
"""

import numpy as np
from keras import ops

from tfvid.layers import one_image, xla

SIDE = 2  # of the neighbours; with 4 forward passes are no faster, and gradients slower with oneDNN
LEAST_TAPS = 5  # of a kernel's side
MOST_OUTPUTS = 8


def conv2d(x, kernel, padding="same"):
    """Convolution of stride 1 by this method where it pays, otherwise `one_image`'s.

    Args:
      x: [N, H, W, in].
      kernel: [k, k, in, out].
      padding: "same" or "valid".

    Returns:
      [N, H, W, out], under "valid" less the border.
    """
    if not pays(x, kernel, padding):
        return one_image.conv2d(x, kernel, 1, padding)
    if padding == "same":
        border = (kernel.shape[0] // 2,) * 2
        x = ops.pad(x, ((0, 0), border, border, (0, 0)))
    together = one_image.conv2d(x, _of_neighbours(kernel), SIDE, "valid")
    return ops.depth_to_space(together, SIDE, data_format="channels_last")


def pays(x, kernel, padding):
    """Whether the convolution is of the kind that gains, on a CPU."""
    taps, width = kernel.shape[:2]
    lost = 0 if padding == "same" else taps - 1
    return (
        taps == width
        and taps % 2 == 1
        and taps >= LEAST_TAPS
        and kernel.shape[3] <= MOST_OUTPUTS
        and all(n is not None and n > lost and (n - lost) % SIDE == 0 for n in x.shape[1:3])
        and xla.on_cpu()
    )


def _of_neighbours(kernel):
    """[k, k, in, out] -> [k + 1, k + 1, in, 4 out]: the kernel of each of the neighbours, row by row."""
    taps = kernel.shape[0]
    places = np.stack([np.eye(taps + SIDE - 1, taps, -i) for i in range(SIDE)])  # [neighbour, place, tap]
    places = ops.cast(ops.convert_to_tensor(places), kernel.dtype)
    together = ops.einsum("apk,bql,klio->pqiabo", places, places, kernel)
    return ops.reshape(together, (*together.shape[:3], -1))
