"""Guided Grad-CAM: guided backpropagation where Grad-CAM is. Two gradients.

Reference: Selvaraju et al. (2017), as in `cfx.attribution.grad_cam`.
"""

from dataclasses import dataclass
from typing import ClassVar

from cfx.attribution.grad_cam import GradCam, resized
from cfx.attribution.guided_backprop import guided, unseen
from cfx.attribution.method import Family, Found, Question, Whole


@dataclass(frozen=True)
class GuidedGradCam:
    """The product of the two.

    Attributes:
        layer: Of Grad-CAM, likewise.
    """

    layer: str = ""

    name: ClassVar[str] = "guided-grad-cam"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        where = resized(GradCam(self.layer).coarse(question), question.space)
        return Found(guided(question) * where, refused=unseen(question))
