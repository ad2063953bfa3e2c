"""Networks that draw masks: of one image as many as are asked for, each as an expert might have drawn it.

One method is one file, with its network, the loss it is trained by, and its draw; what they share is `sampler`.
"""

from cfx.models.samplers.sampler import Draw, MaskSampler, one_reader

__all__ = ["Draw", "MaskSampler", "one_reader"]
