"""What the methods of a layer take: called with as much as they ask for, and refused in words where it is too much."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jdl import check
from jdl.check import InputError
from jdl.nn.settings import Function, Param, Settings

ALONG_TIME = {"lengths", "carry", "return_carry"}


def declarations(declare: Callable[..., dict[str, Param]], inputs: tuple[Any, ...], options: dict[str, Any]) -> dict:
    """Call ``params`` or ``state`` with as many of the inputs, and those options, as its signature takes."""
    count, names = _signature(declare.__func__)  # pyright: ignore[reportFunctionMemberAccess]
    taken = options if names is None else {name: options[name] for name in names if name in options}
    declared = declare(*inputs[:count], **taken)
    if not isinstance(declared, dict):
        raise InputError(f"declares {check.describe(declared)}, wanted a dict of name to nn.Param")
    return declared


@functools.cache
def _signature(function: Callable[..., Any]) -> tuple[int | None, tuple[str, ...] | None]:
    kinds = inspect.Parameter
    parameters = list(inspect.signature(function).parameters.values())[1:]
    positional = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    every = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
    names = None if any(p.kind is kinds.VAR_KEYWORD for p in parameters) else tuple(p.name for p in parameters)
    return (None if every else len(positional)), names


def refusal(layer: Settings, inputs: tuple[Any, ...], options: dict[str, Any]) -> InputError | None:
    """Why a layer cannot be called with these inputs and options; None where its signature is not what is wrong.

    Of a call with nothing at all, whoever made it knows more.
    """
    if not inputs and not options:
        return None
    called = [(layer.traverse, (None, *inputs)), (layer.forward, (None, *inputs))]  # None is for the net
    if isinstance(layer, Function):
        called.append((layer.function, inputs))
    for function, given in called:
        try:
            signature = inspect.signature(function)
            signature.bind(*given, **options)
        except TypeError:
            return _refusal(layer, list(signature.parameters.values())[len(given) - len(inputs) :], inputs, options)
        except ValueError:  # a builtin whose signature is not known
            continue
    return None


def _refusal(
    layer: Settings, parameters: list[inspect.Parameter], inputs: tuple[Any, ...], options: dict[str, Any]
) -> InputError:
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    kind = repr(layer) if isinstance(layer, Function) else type(layer).__name__
    if surplus := [name for name in options if name not in named]:
        takes = f" (it takes {', '.join(named)})" if named else ""
        fix = "; stack recurrent layers by nn.StackedRecurrent, others in a forward of your own that hands this on"
        fix = fix if ALONG_TIME & {*surplus} else ""
        return InputError(f"got {', '.join(surplus)}, which {kind} does not take{takes}{fix}")
    count = f"{len(names)} input{'s' * (len(names) != 1)} ({', '.join(names)})"
    return InputError(
        f"takes {count}, got {len(inputs) + len(options)}: {check.describe((*inputs, *options.values()))}"
    )
