"""SNA: Skip-connection Neural Advection.

Source: Ebert, Finn, Lee, Levine, "Self-Supervised Visual Planning with Temporal Skip
Connections" (2017); alexlee-gk/video_prediction, models/sna_model.py.
"""

from tfvid.models.baselines.hparams import SNAHParams
from tfvid.models.baselines.networks import Variant
from tfvid.models.baselines.recurrent import RecurrentBaseline


class SNA(RecurrentBaseline):
    """Five recurrent layers; the first frame, a synthesised one and warps of the last, blended by masks."""

    HPARAMS = SNAHParams

    def variant(self):
        h = self.hparams
        return Variant(
            channels={1: h.ngf, 3: 2 * h.ngf, 5: 4 * h.ngf, 6: 2 * h.ngf, 7: h.ngf},
            transformation=h.transformation,
            kernel_size=h.kernel_size,
            num_masks=h.num_masks,
            scratch_image=h.generate_scratch_image,
            first_image_background=h.first_image_background,
            use_all_warps=True,
            relu_before_softmax=False,
            relu_after_upsampling=True,
            relu_on_pixel_kernels=True,
            suffix="_cam2",
        )
