"""DNA: convolutional dynamic neural advection, the model that SNA and SV2P come from.

Source: Finn, Goodfellow, Levine, "Unsupervised Learning for Physical Interaction through
Video Prediction" (2016); alexlee-gk/video_prediction, models/dna_model.py, whose class
cannot be called at its last commit but whose network can.
"""

from tfvid.models.baselines.hparams import DNAHParams
from tfvid.models.baselines.networks import Variant
from tfvid.models.baselines.recurrent import RecurrentBaseline

CHANNELS = {1: 32, 2: 32, 3: 64, 4: 64, 5: 128, 6: 64, 7: 32}


class DNA(RecurrentBaseline):
    """Seven recurrent layers; masks and synthesised frame pass a ReLU first, as in the original."""

    HPARAMS = DNAHParams

    def variant(self):
        h = self.hparams
        return Variant(
            channels=CHANNELS,
            transformation=h.transformation,
            kernel_size=h.kernel_size,
            num_masks=h.num_masks,
            scratch_image=True,
            first_image_background=False,
            use_all_warps=False,
            relu_before_softmax=True,
            relu_after_upsampling=True,
            relu_on_pixel_kernels=True,
        )
