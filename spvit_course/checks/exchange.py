"""A class written by hand against the package's: weights go strictly both ways, and both compute the same."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .engine import Case, Exercise, Result, Verdict, examine, require_type
from .settings import fixed_settings


@fixed_settings()
def exchange(
    student: type[nn.Module], package: type[nn.Module], *, build: dict, inputs: tuple, seed: int = 0
) -> Result:
    """Compare two modules that are built by `build` and called on `inputs`, in float64, at the same random weights.

    Passes if their state dicts have the same names and shapes, so that each loads the other's strictly, and if outputs
    and gradients, with respect to all weights and inputs, are the same.
    """
    state = package(**build).double().state_dict()
    names = list(state)

    def cases(generator: torch.Generator) -> list[Case]:
        weights = [
            torch.randn(value.shape, dtype=value.dtype, generator=generator) if value.is_floating_point() else value
            for value in state.values()
        ]
        given = [value.detach().cpu() if isinstance(value, Tensor) else value for value in inputs]
        arguments = [value.double() if isinstance(value, Tensor) and value.is_floating_point() else value for value in given]
        return [Case("the given inputs, at random weights", (*weights, *arguments))]

    def call(kind: Callable[..., nn.Module], *arguments) -> Tensor:
        weights = dict(zip(names, arguments[: len(names)], strict=True))
        return run_module(kind(**build), weights, *arguments[len(names) :])

    result = examine(Exercise(package.__name__, package, cases, call=call), student, seed=seed)
    if not result.passed:
        return result
    return Result(result.exercise, "PASS", ("weights fit both ways; outputs and gradients are the package's",))


def run_module(module: nn.Module, weights: dict[str, Tensor], *inputs) -> Tensor:
    """Call a module in float64 at these weights, which must be all of its own."""
    require_type(module, nn.Module, "an nn.Module", what="the class makes")
    module = module.double().eval()
    compare_states(weights, module.state_dict())
    return torch.func.functional_call(module, weights, inputs, strict=True)


def compare_states(package: dict[str, Tensor], student: dict[str, Tensor]) -> None:
    """Raise a verdict that names the weights which do not fit."""
    differing = [name for name in package if name in student and package[name].shape != student[name].shape]
    groups = {
        "only the package has": [name for name in package if name not in student],
        "only yours has": [name for name in student if name not in package],
        "of another shape": [f"{name} {tuple(student[name].shape)}" for name in differing],
    }
    lines = [f"{words}: {', '.join(names)}" for words, names in groups.items() if names]
    if lines:
        raise Verdict(f"the weights do not fit: {'; '.join(lines)}.")
