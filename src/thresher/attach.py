"""The one file that knows `torch.nn.utils.parametrize`: attach an operator, read through it, take it off."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from thresher.errors import StateError
from thresher.targets import Target

# Where a module notes the order of its parameters while some are parametrized, so that state dicts get it back.
_ORDER = "_order_before_thresher"


class Shell(nn.Module):
    """Base of the operator modules that `attach` registers: `forward(theta) -> w` of the same shape and dtype.

    `right_inverse` is the identity, so that assigning `module.weight` writes the stored parameter theta.
    """

    def right_inverse(self, weight: Tensor) -> Tensor:
        """theta = w: the stored parameter takes the value as it is."""
        return weight


def check_plain(model: nn.Module) -> None:
    """Refuse a model that is being pruned already. Errors: StateError naming the first attached tensor."""
    for name, module in model.named_modules():
        for tensor, chain in module.parametrizations.items() if parametrize.is_parametrized(module) else ():  # type: ignore[union-attr, operator]
            if any(isinstance(operator, Shell) for operator in chain):
                raise StateError(
                    f"a model whose {name}.{tensor} is being pruned already".replace(" .", " "),
                    "a model without a pruner at work",
                    "call finish() on the earlier pruner first",
                )


def attach(target: Target, shell: Shell) -> None:
    """Make every module of `target` read `shell(theta)` where it read theta.

    The stored Parameter object stays the same, so an optimizer made before still holds it. Tied modules
    share one `shell`.

    Errors: StateError when a tensor is parametrized already.
    """
    for module, tensor in target.sites:
        if parametrize.is_parametrized(module, tensor):
            raise StateError(
                f"{target.name}, which is parametrized already",
                "a plain tensor",
                "finish the earlier pruner, or remove the other parametrization first",
            )
    for module, tensor in target.sites:
        vars(module).setdefault(_ORDER, tuple(module._parameters))
        stored = module._parameters[tensor]
        assert stored is not None
        # torch calls `set_` on what it registers, which cuts the gradient hooks of DistributedDataParallel off the
        # Parameter: so it gets a stand-in on the same memory, and the Parameter itself is put in afterwards, untouched.
        module._parameters[tensor] = nn.Parameter(stored.detach(), requires_grad=stored.requires_grad)
        parametrize.register_parametrization(module, tensor, shell)
        module.parametrizations[tensor]._parameters["original"] = stored  # type: ignore[union-attr, index]


def exchange(target: Target, shell: Shell, *, inherit: bool) -> None:
    """Put `shell` in the place of the one that `attach` registered. inherit: it takes over that one's buffers."""
    for module, tensor in target.sites:
        chain: nn.ModuleList = module.parametrizations[tensor]  # type: ignore[assignment, union-attr, index]
        if inherit:
            shell.load_state_dict(chain[0].state_dict(), strict=False)
        chain[0] = shell.train(chain.training)


def latent(target: Target) -> nn.Parameter:
    """The stored parameter theta of an attached (or plain) target."""
    module, tensor = target.sites[0]
    if parametrize.is_parametrized(module, tensor):
        stored: nn.Parameter = module.parametrizations[tensor].original  # type: ignore[assignment, union-attr, index]
        return stored
    return getattr(module, tensor)  # type: ignore[no-any-return]


def effective(target: Target) -> Tensor:
    """The weight that the forward pass uses in eval mode, `w = P(theta)`, without a graph."""
    return _read(*target.sites[0])


def _read(module: nn.Module, tensor: str) -> Tensor:
    # An operator may be softer in training; what counts, is saved and is kept in the end is what it does in eval mode.
    operators = list(module.parametrizations[tensor]) if parametrize.is_parametrized(module, tensor) else []  # type: ignore[union-attr, index, arg-type]
    flags = [operator.training for operator in operators]
    try:
        for operator in operators:
            operator.training = False
        with torch.no_grad():
            return getattr(module, tensor).detach()  # type: ignore[no-any-return]
    finally:
        for operator, flag in zip(operators, flags, strict=True):
            operator.training = flag


def detach(targets: Iterable[Target], weights: Iterable[Tensor]) -> None:
    """Write each weight into its stored parameter and restore the plain modules.

    The Parameter objects, ties and optimizer state survive. A deep copy of the model made while attached is
    not touched: its modules share the generated class, so the class is left alone and only the instances
    change back (`torch.nn.utils.parametrize.remove_parametrizations` would break such copies).
    """
    for target, weight in zip(targets, weights, strict=True):
        stored = latent(target)
        with torch.no_grad():
            stored.copy_(weight)
        for module, tensor in target.sites:
            restore(module, tensor, stored)


def restore(module: nn.Module, tensor: str, parameter: nn.Parameter) -> None:
    """Put `parameter` back as `module.tensor` and drop that parametrization."""
    parametrizations = module.parametrizations
    del parametrizations[tensor]  # type: ignore[operator, union-attr]
    generated = type(module)
    if not len(parametrizations):  # type: ignore[arg-type]
        del module._modules["parametrizations"]
        module.__class__ = generated.__bases__[0]
    else:
        # Other tensors of the module are still parametrized: shadow the class property with a class of its own.
        hidden = (tensor, "__dict__", "__weakref__")
        members = {key: value for key, value in vars(generated).items() if key not in hidden}
        module.__class__ = type(generated.__name__, generated.__bases__, members)
    module.register_parameter(tensor, parameter)
    order = vars(module).get(_ORDER, (tensor,))
    module._parameters = {
        name: module._parameters[name]
        for name in dict.fromkeys((*order, *module._parameters))
        if name in module._parameters
    }
    if all(name in module._parameters for name in order):
        vars(module).pop(_ORDER, None)
    _refresh(module)


def _refresh(module: nn.Module) -> None:
    # Recurrent layers list their weights as last read; a thresholded one has a graph and could not be deep-copied.
    if isinstance(module, nn.RNNBase):
        with torch.no_grad():
            module._init_flat_weights()


def finalize_copy(model: nn.Module) -> nn.Module:
    """A plain deep copy of an attached model, each weight as in eval mode; the original is untouched."""
    for module in model.modules():
        _refresh(module)
    twin = copy.deepcopy(model)
    done: dict[int, nn.Parameter] = {}
    for module in list(twin.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for tensor, chain in list(module.parametrizations.items()):  # type: ignore[union-attr, operator]
            if not isinstance(chain[0], Shell):
                continue
            stored = chain.original
            if id(stored) not in done:
                weight = _read(module, tensor).clone()
                done[id(stored)] = nn.Parameter(weight, requires_grad=stored.requires_grad)
            restore(module, tensor, done[id(stored)])
    return twin


def real_model(model: nn.Module) -> nn.Module:
    """The module that names and hooks belong to: torch.compile and data parallel training wrap it."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model
