"""nnsight's wrapper around a torch module: built once, shared, and removed without a trace."""

from __future__ import annotations

import inspect
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, final

from torch import nn

if TYPE_CHECKING:
    from nnsight import NNsight

__all__ = [
    "Wrapper",
    "envoy_at",
    "foreign_forwards",
    "inner_forward",
    "mount_save",
    "refuse_running",
    "resting",
    "unwrap",
    "wrapper_of",
]

_STATE = "__nnsight__"


@final
@dataclass(frozen=True, eq=False)
class Wrapper:
    """nnsight's root object of one module, the instance forwards it displaced, and the tree as it was wrapped.

    Args:
        root: nnsight's view of the module.
        displaced: forwards that stood on the instances.
        children: part -> its children by name.
        idle: part -> nnsight's forward, where that does nothing but call the forward of the part's class.
    """

    root: NNsight
    displaced: dict[nn.Module, Callable[..., Any]]
    children: dict[nn.Module, dict[str, nn.Module | None]]
    idle: dict[nn.Module, Callable[..., Any]]

    def serves(self, module: nn.Module) -> bool:
        """Whether it still names every part of this module by its present path."""
        if self.root._module is not module:
            return False
        return all(_STATE in vars(part) and part._modules == children for part, children in self.children.items())


# Weak on both sides: whoever runs the model holds the wrapper, and with the last of them it goes.
_WRAPPERS: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Wrapper]] = weakref.WeakKeyDictionary()
# The modules that a run uses now: what nnsight put on them must stay until it is over.
_RUNNING: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def wrapper_of(module: nn.Module) -> Wrapper:
    """The wrapper of this module, built if there is none."""
    reference = _WRAPPERS.get(module)
    found = reference() if reference is not None else None
    if found is None or not found.serves(module):
        found = _wrap(module)
        _WRAPPERS[module] = weakref.ref(found)
    return found


def _wrap(module: nn.Module) -> Wrapper:
    _refuse_running(module)
    ours = "nnsight" not in sys.modules
    from nnsight import NNsight

    if ours:
        _unmount()
    parts = [part for part in module.modules() if _STATE not in vars(part)]
    displaced = {part: vars(part)["forward"] for part in parts if "forward" in vars(part)}
    with warnings.catch_warnings():
        # Of parts that are called as nnsight calls its own: `envoy_at` knows them.
        warnings.filterwarnings("ignore", message=".*nnsight already serves on every module")
        root = NNsight(module)
    children = {part: dict(part._modules) for part in module.modules()}
    idle = {part: vars(part)["forward"] for part in children if vars(part)[_STATE].body is type(part).forward}
    return Wrapper(root, displaced, children, idle)


def envoy_at(envoy: Any, path: str) -> Any:
    """nnsight's view of a part, by the path of its module below another one.

    Args:
        envoy: the view of that other one.
        path: as modules spell it; "" is the same part.
    """
    for name in _spelled(path):
        envoy = getattr(envoy, name)
    return envoy


@cache
def _spelled(path: str) -> tuple[str, ...]:
    """The names on a path as nnsight has them: a part that is called like a value of its own has another one."""
    from nnsight import Envoy

    taken = (name for name in path.split(".") if name)
    return tuple(
        f"{Envoy.OVERLOAD_PREFIX}{name}" if inspect.isdatadescriptor(getattr(Envoy, name, None)) else name
        for name in taken
    )


def _unmount() -> None:
    """Take off the `.save` that nnsight hangs on every object of Python, by which other libraries tell what a value is.

    It stays where somebody imported nnsight before, and comes back with `mount_save`.
    """
    from nnsight._c import unmount

    if unmount is not None:
        unmount("save")


def mount_save() -> None:
    """Hang nnsight's `.save` on every object again, for whoever writes traces of nnsight, unless its config says no."""
    from nnsight import save
    from nnsight._c import mount
    from nnsight.schema.config import CONFIG

    if CONFIG.APP.PYMOUNT and mount is not None:
        mount(save, "save")


@contextmanager
def resting(module: nn.Module, awake: Collection[nn.Module]) -> Iterator[None]:
    """Take nnsight's forward off the parts that a run does not visit, for as long as the run lasts.

    As long nobody can wrap or unwrap the module. Where a forward takes longer to launch than to compute, several
    hundred idle handoffs are a tenth of it.

    Args:
        module: the whole model; nothing happens where it is not wrapped.
        awake: the parts that are visited.
    """
    reference = _WRAPPERS.get(module)
    wrapper = reference() if reference is not None else None
    idle = {} if wrapper is None else wrapper.idle
    for part, own in idle.items():  # an interrupt may have hit the last run while it put them back
        vars(part).setdefault("forward", own)
    taken = {part: own for part, own in idle.items() if part not in awake and _is_idle(part, own)}
    _RUNNING.add(module)
    try:
        for part in taken:
            del vars(part)["forward"]
        yield
    finally:
        _RUNNING.discard(module)
        for part, own in taken.items():
            vars(part)["forward"] = own


def _is_idle(part: nn.Module, forward: Callable[..., Any]) -> bool:
    """Whether nnsight's forward still stands there and accelerate has not hooked into it."""
    return vars(part).get("forward") is forward and "_hf_hook" not in vars(part)


def unwrap(module: nn.Module) -> None:
    """Take nnsight out of a module: its state and its forward go, a forward that stood there comes back.

    Raises:
        RuntimeError: a run uses the module, that is, a function called by this run calls this.
    """
    _refuse_running(module)
    reference = _WRAPPERS.pop(module, None)
    wrapper = reference() if reference is not None else None
    displaced = wrapper.displaced if wrapper is not None else {}
    for part in module.modules():
        state = vars(part).pop(_STATE, None)
        if state is None:
            continue
        vars(part).pop("forward", None)
        forward = displaced.get(part) or _earlier_forward(part, state)
        if forward is not None:
            vars(part)["forward"] = forward


def refuse_running(module: nn.Module, what: str, calls: str) -> None:
    """Refuse what a module cannot have while a run uses it.

    Args:
        module: perhaps in use.
        what: cannot be done, in words.
        calls: what to call when no run goes on.

    Raises:
        RuntimeError: a run is going on.
    """
    if module in _RUNNING:
        raise RuntimeError(
            f"{type(module).__name__} is running already: a run is going on, and {what} until that is over; expected "
            f"no run; call {calls} outside of hook and on_step functions"
        )


def _refuse_running(module: nn.Module) -> None:
    refuse_running(module, "nnsight cannot be put on it or taken off", "unwrap() or .nnsight")


def _earlier_forward(part: nn.Module, state: Any) -> Callable[..., Any] | None:
    """The instance forward that nnsight displaced when someone else wrapped the module."""
    if "_hf_hook" in vars(part):
        from accelerate.hooks import add_hook_to_module

        add_hook_to_module(part, vars(part)["_hf_hook"])
        return vars(part)["forward"]
    if state.original is type(part).forward:
        return None
    return types.MethodType(state.original, part)


def inner_forward(part: nn.Module) -> Callable[..., Any]:
    """What a part computes with, beneath nnsight and accelerate, which only hand it on."""
    state, own = vars(part).get(_STATE), vars(part).get("forward")
    if "_hf_hook" in vars(part) or (state is None and own is None):
        return type(part).forward
    return own if state is None else state.body  # pyright: ignore


def foreign_forwards(module: nn.Module) -> list[str]:
    """The parts of a module that compute with another forward than that of their class.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> model[1].forward = lambda x: x
        >>> foreign_forwards(model)
        ['1']
    """
    return [name or "the model itself" for name, part in module.named_modules() if _is_replaced(part)]


def _is_replaced(part: nn.Module) -> bool:
    own = inner_forward(part)
    return own is not type(part).forward and getattr(own, "__func__", None) is not type(part).forward
