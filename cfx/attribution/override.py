"""One override of what goes backward through activations: guided backpropagation, epsilon-LRP, DeepLIFT, FullGrad.

All of these are gradients of the network in which some operation has another slope than its own:

    guided backpropagation    phi'(z), and of the gradient that arrives only what is positive
    epsilon-LRP               phi(z) / z; after every affine operation z / (z + e sign z)
    DeepLIFT (rescale)        (phi(z) - phi(z')) / (z - z') between an image and its baseline, shown side by side

(Ancona, Ceolini, Oztireli, Gross 2018, "Towards better understanding of gradient-based attribution methods", prop. 1).
A `TorchFunctionMode` sees every call of a torch function while the network runs. So it makes no difference whether an
activation is a module, a function, used twice or works in place, nor how many axes there are. What runs outside (a
script, a compiled graph, an autograd function of the user's own) keeps its own slope, which completeness shows.

An affine operation A z + b hands `Override.biases` what goes to b. Operations that are neither linear nor act on every
number by itself (normalisation by the statistics of an image, attention, products) have no slope of that kind: they
keep their gradient, and their names are in `foreign`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

ACTIVATIONS = frozenset([
    "relu", "relu6", "hardtanh", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus",
    "hardswish", "hardsigmoid", "logsigmoid", "log_sigmoid", "prelu", "rrelu", "threshold", "tanhshrink", "softsign",
    "softshrink", "hardshrink", "tanh", "sigmoid", "clamp", "clamp_min", "clamp_max", "clip", "abs", "exp", "expm1",
    "log", "log1p", "sqrt", "square", "erf", "sin", "cos", "atan", "pow",
])  # fmt: skip
"""Names of functions of one number at a time."""
AFFINE = frozenset([
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm",
    "addmm", "baddbmm", "add", "radd", "iadd", "sub", "rsub", "isub",
])  # fmt: skip
"""Names of linear operations that may add something that does not depend on the image."""
POOLS = frozenset([
    "max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
])  # fmt: skip
"""Names of operations that pass on the largest of several numbers."""
FOREIGN = frozenset([
    "group_norm", "layer_norm", "instance_norm", "rms_norm", "local_response_norm", "normalize", "softmax",
    "log_softmax", "scaled_dot_product_attention", "multi_head_attention_forward",
])  # fmt: skip
"""Names of operations without a rule."""
_PRODUCTS = frozenset([
    "mul", "rmul", "imul", "div", "truediv", "matmul", "rmatmul", "bmm", "mm", "einsum",
])  # fmt: skip
_RULED = ACTIVATIONS | AFFINE | POOLS | FOREIGN
_PER_ROW = ("conv", "linear", "batch_norm")
_NEAR = 1e-6  # relative difference below which a secant is a tangent

Run = Callable[[Tensor], Tensor]


class Plain:
    """The gradient itself, which other rules derive from.

    Attributes:
        positive: Whether of the gradient that arrives at an activation only what is positive goes on.
    """

    positive = False

    def slope(self, z: Tensor, out: Tensor, run: Run) -> Tensor:
        """The slope of an activation at z, whose value there is `out`: phi'(z)."""
        return derivative(run, z)

    def damping(self, out: Tensor) -> Tensor | None:
        """What the gradient is multiplied by behind an affine operation; None for nothing."""
        return None

    def pool(self, z: Tensor, out: Tensor, places: Tensor) -> tuple[Tensor, Tensor] | None:
        """Places and slopes of a maximum over several numbers; None for its gradient."""
        return None


class Guided(Plain):
    """phi'(z), and of the gradient that arrives only what is positive."""

    positive = True


class Ratio(Plain):
    """phi(z) / z.

    Args:
        epsilon: What keeps the output of an affine operation from zero.
    """

    def __init__(self, epsilon: float) -> None:
        """See the class."""
        self.epsilon = epsilon

    def slope(self, z: Tensor, out: Tensor, run: Run) -> Tensor:
        """phi(z) / z; where z is zero the tangent."""
        return torch.where(z == 0, derivative(run, z), out / torch.where(z == 0, 1.0, z))

    def damping(self, out: Tensor) -> Tensor | None:
        """Z / (z + e sign z), with sign 0 = 1."""
        return out / (out + torch.where(out < 0, -self.epsilon, self.epsilon))


class Secant(Plain):
    """Slopes between the first half of a batch, images, and the second, their baselines."""

    def slope(self, z: Tensor, out: Tensor, run: Run) -> Tensor:
        """(phi(z) - phi(z')) / (z - z') in both halves; where they are equal the tangent."""
        if len(z) % 2:
            return derivative(run, z)
        (a, b), (u, v) = z.chunk(2), out.chunk(2)
        step = a - b
        near = step.abs() <= _NEAR * (a.abs() + b.abs()).clamp_min(_NEAR)
        found = torch.where(near, derivative(run, (a + b) / 2), (u - v) / torch.where(near, 1.0, step))
        return torch.cat([found, found])

    def pool(self, z: Tensor, out: Tensor, places: Tensor) -> tuple[Tensor, Tensor] | None:
        """The whole change of a maximum goes to one number: the larger maximum's. Its slope is in [0, 1].

        If the image has the larger maximum u > v, that is where its maximum is: there the image has u and the baseline
        at most v, so that the number changes by at least u - v. Else it is where the baseline has its maximum.
        """
        if len(z) % 2:
            return None
        (u, v), (i, j) = out.chunk(2), places.chunk(2)
        at = torch.where(u > v, i, j)
        a, b = (half.flatten(2).gather(2, at.flatten(2)).view_as(u) for half in z.chunk(2))
        step = a - b
        found = torch.where(step == 0, 1.0, (u - v) / torch.where(step == 0, 1.0, step))
        return torch.cat([at, at]), torch.cat([found, found])


class Override(TorchFunctionMode):
    """While it is on, operations have the slopes of a rule.

    Attributes:
        seen: How many activations were met.
        foreign: Names of operations that the rule is none for.

    Args:
        rule: The slopes.
        biases: Is told, of every operation, the gradient at its output times what does not depend on its input: b of
            A z + b; with `implicit` also out - phi'(z) z of an activation, and all of a normalised output, which
            does not change with the size of its input.
        implicit: Whether to do that.
    """

    def __init__(self, rule: Plain, biases: Callable[[Tensor], None] | None = None, *, implicit: bool = False) -> None:
        """See the class."""
        super().__init__()
        self.rule, self.biases, self.implicit = rule, biases, implicit
        self.seen, self.foreign = 0, set[str]()

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """A call of a torch function."""
        kwargs = dict(kwargs or {})
        name, inside = getattr(func, "__name__", "").strip("_"), _in_graph(args, kwargs)
        if len(inside) > 1 and name in _PRODUCTS:
            self.foreign.add("product")
        if not inside or name not in _RULED:
            return func(*args, **kwargs)
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        if name in ACTIVATIONS:
            return self._activation(func, args, kwargs)
        if name in POOLS:
            return self._pool(name, func, args, kwargs)
        out = func(*args, **kwargs)
        return self._foreign(name, out) if name in FOREIGN else self._affine(name, func, args, kwargs, out, inside)

    def _activation(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        z = args[0]
        if not (isinstance(z, Tensor) and z.grad_fn is not None) or _in_graph(args[1:], kwargs):
            return func(*args, **kwargs)
        self.seen += 1
        copy = z.detach().clone()

        def run(v: Tensor) -> Tensor:
            found: Tensor = func(v, *args[1:], **kwargs)
            return found

        with torch.no_grad():
            out = run(copy)
        source = z.clone() if (in_place := out.data_ptr() == copy.data_ptr()) else z
        still = z.detach().clone() if in_place else z.detach()
        slope = self.rule.slope(still, out, lambda v: run(v.clone()))
        bent = _bent(source, out, slope, self.rule.positive)
        if self.implicit:
            self._told(bent, out - slope * still)
        return z.copy_(bent) if in_place else bent

    def _pool(self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        if kwargs.pop("return_indices", False):
            return func(*args, **kwargs, return_indices=True)
        z: Tensor = args[0]
        out, places = getattr(F, name)(*args, **kwargs, return_indices=True)
        chosen = self.rule.pool(z.detach(), out.detach(), places)
        if chosen is None:
            return out
        at, slope = chosen
        picked = z.flatten(2).gather(2, at.flatten(2)).view_as(out)
        return _bent(picked, out.detach().clone(), slope, False)

    def _affine(
        self, name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any, inside: Sequence[Tensor],  # noqa: ANN401
    ) -> Any:  # fmt: skip  # noqa: ANN401
        if len(inside) != 1 or not isinstance(out, Tensor) or not out.requires_grad:
            return out
        damping = None if name.endswith(("add", "sub")) else self.rule.damping(out.detach())
        if self.biases is not None:
            self._told(out, _constant(name, func, args, kwargs, inside[0]))
        return out if damping is None else _bent(out, out.detach().clone(), damping, False)

    def _foreign(self, name: str, out: Any) -> Any:  # noqa: ANN401
        self.foreign.add(name)
        if self.implicit and name.endswith("_norm") and isinstance(out, Tensor):
            self._told(out, out.detach().clone())
        return out

    def _told(self, out: Tensor, constant: Tensor) -> None:
        """Have the gradient at an output multiplied by a constant, and told."""
        tell = self.biases
        if tell is not None and out.requires_grad and bool((constant != 0).any()):
            out.register_hook(lambda g: tell(g.detach() * constant))


class _Bend(torch.autograd.Function):
    """A value that is known, with a slope of its own to what it is of."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, out: list[Tensor], slope: Tensor, positive: bool) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(slope)
        ctx.positive = positive
        return out[0]  # from inside a list, so that it is no alias of an input

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (slope,) = ctx.saved_tensors
        arriving = g[0].clamp_min(0) if ctx.positive else g[0]
        return arriving * slope, None, None, None


def _bent(z: Tensor, out: Tensor, slope: Tensor, positive: bool) -> Tensor:
    found: Tensor = _Bend.apply(z, [out], slope, positive)  # type: ignore[no-untyped-call]
    return found


def derivative(run: Run, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The derivative of a function of one number at a time."""
    with torch.enable_grad():
        v = z.detach().clone().requires_grad_(True)
        (found,) = torch.autograd.grad(run(v).sum(), v)
    return found


def _in_graph(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The arguments that depend on the image; parameters of a network that nobody could put to rest do not."""
    return [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.grad_fn is not None]


def _constant(name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], z: Tensor) -> Tensor:  # noqa: ANN401
    """What an affine operation gives for zero; of one that treats every row alike, for a single one."""
    zero = torch.zeros_like(z[:1] if name.startswith(_PER_ROW) and z.ndim > 1 else z)
    with torch.no_grad():
        given = [zero if v is z else v for v in args]
        found: Tensor = func(*given, **{key: zero if v is z else v for key, v in kwargs.items()})
    return found
