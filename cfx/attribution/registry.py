"""Methods of attribution by name; a method's module is imported when it is first asked for."""

from cfx.attribution.method import Method
from cfx.core.named import build

ATTRIBUTIONS = {
    "saliency": "saliency:Saliency",
    "input-x-gradient": "input_x_gradient:InputXGradient",
    "integrated-gradients": "integrated_gradients:IntegratedGradients",
    "smoothgrad": "smoothgrad:SmoothGrad",
    "guided-backprop": "guided_backprop:GuidedBackprop",
    "deeplift": "deeplift:DeepLift",
    "epsilon-lrp": "epsilon_lrp:EpsilonLrp",
    "fullgrad": "fullgrad:FullGrad",
    "cam": "cam:Cam",
    "grad-cam": "grad_cam:GradCam",
    "guided-grad-cam": "guided_grad_cam:GuidedGradCam",
    "score-cam": "score_cam:ScoreCam",
    "occlusion": "occlusion:Occlusion",
    "difference": "difference:Difference",
    "edges": "controls:Edges",
    "centre": "controls:Centre",
    "random": "controls:Chance",
}
"""Name of each method, and where under `cfx.attribution` it is."""


def build_attribution(name: str, **settings: object) -> Method:
    """A method with its usual settings, or these.

    Raises:
        InputError: an unknown name or setting, or settings of another type.
    """
    made: Method = build("method", ATTRIBUTIONS, "cfx.attribution", name, settings)
    return made
