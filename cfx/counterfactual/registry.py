"""Methods of explanation by name; a method's module is imported when it is first asked for."""

from cfx.core.denoiser import Generative
from cfx.core.errors import InputError
from cfx.core.named import build
from cfx.counterfactual.method import Method
from cfx.models.autoencoder import Vae

METHODS = {
    "minimal": "minimal:Minimal",
    "morph": "morph:Morph",
    "gradient-attack": "baselines.attack:GradientAttack",
    "additive-map": "baselines.additive:AdditiveMap",
    "latent-shift": "baselines.latent_shift:LatentShift",
    "dime": "baselines.dime:Dime",
    "fastdime": "baselines.fastdime:FastDime",
    "fastdime-2": "baselines.fastdime:FastDime2",
    "maskdime": "baselines.maskdime:MaskDime",
    "ace": "baselines.ace:Ace",
    "dvce": "baselines.dvce:Dvce",
    "ddim-guidance": "baselines.ddim:DdimGuidance",
    "one-step": "baselines.one_step:OneStep",
}
"""Name of each method, and where under `cfx.counterfactual` it is."""


NEEDS: dict[str, type | None] = {"gradient-attack": None, "additive-map": None, "latent-shift": Vae}
"""What these methods generate with; all others need a diffusion model."""


_MAKES: dict[type | None, str] = {
    Generative: (
        "a bare network becomes one with its schedule, cfx.core.denoiser.Denoiser(network, schedule), and what is in a "
        "folder or file by cfx.models.open_network(path, 'generator')"
    ),
    Vae: "cfx.models.open_network(path, 'autoencoder') opens one",
}
"""How one comes by each."""


def check_generator(method: Method, generator: object) -> None:
    """Refuse a generator that one of these methods cannot use, before any work is done.

    Raises:
        InputError: it is of another kind than the method needs.
    """
    wanted = NEEDS.get(method.name, Generative)
    if method.name in METHODS and wanted is not None and not isinstance(generator, wanted):
        kind = "an autoencoder" if wanted is Vae else "a diffusion model"
        expected = f"generator: expected {kind} for {method.name}, got {type(generator).__name__}"
        raise InputError(expected + ("" if generator is None else f"; {_MAKES[wanted]}"))
    if wanted is Vae and type(generator).__module__.startswith("diffusers."):
        call = "cfx.models.autoencoder.as_vae(...)"
        raise InputError(f"generator: wrap diffusers' {type(generator).__name__} in {call}: its codes are no tensors")


def build_method(name: str, **settings: object) -> Method:
    """A method with its published settings, or these.

    Raises:
        InputError: an unknown name or setting, or settings of another type.
    """
    made: Method = build("method", METHODS, "cfx.counterfactual", name, settings)
    return made
