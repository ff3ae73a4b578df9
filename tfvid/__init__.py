"""tfvid: video prediction and generation as Keras models on TensorFlow 2."""

__version__ = "0.1.0"
