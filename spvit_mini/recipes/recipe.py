"""A recipe: everything that decides the result of a training run, in one dataclass.

The docstring of a field is its help text in `python -m spvit_mini train RECIPE --help`. The recipes by name are beside this
file. A run folder keeps its recipe as recipe.json.
"""

import dataclasses
import json
import types
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import Suppress

from ..data.options import AugmentOptions, DataOptions, check_fields
from ..errors import UserError, near
from ..renamed import current_names
from .duration import parse_duration
from .options import ModelOptions, OptimOptions, TokenLabelOptions

# These options may change when a run is resumed: they decide where the work is done, not what is computed.
NOT_COMPARED = (
    "device", "data.root", "data.workers", "data.download", "token_labels.folder", "micro_batch_size", "sharding", "init_from",
    "imports",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How to train one model on one dataset. Durations are texts: "30 epochs", "240 steps", "50000 images"."""

    name: Suppress[str] = "unnamed"
    """Name by which `get_recipe` finds the recipe."""
    imports: Suppress[tuple[str, ...]] = ()
    """Modules or files that register this run's attention, spatial map or recipe; set by `--import`."""
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    token_labels: TokenLabelOptions = field(default_factory=TokenLabelOptions)
    init_from: Path | None = None
    """Pretrained weights: a run folder or a weights file. The head is re-initialised if the classes differ. None: random
    initialisation."""
    duration: str = "10 epochs"
    """Duration of the training."""
    batch_size: int = 100
    """Global batch size: images per step, over all processes. An epoch is floor(training images / batch size) steps."""
    micro_batch_size: int | None = None
    """Images that a process computes at a time; gradients are accumulated over its share of the batch. None: the whole
    share at once."""
    label_smoothing: float = 0.0
    """Share of each training label that is spread evenly over all classes. The validation loss is computed without it."""
    ema: float | None = None
    """Decay of the EMA weights (exponential moving average), which are evaluated too; 0.9999 averages over about 10,000
    steps. The decay warms up as (1 + steps) / (10 + steps). None: no EMA."""
    evaluate_every: str = "1 epoch"
    """Interval between evaluations on the validation set, a row of metrics.csv each; the last step is always evaluated."""
    save_every: str = "1 epoch"
    """Interval between saved training states, for --resume; the last step is always saved."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; auto: bfloat16 autocast on CUDA, float32 elsewhere."""
    compile: bool = False
    """Compile the model with torch.compile: a minute or more at the start, then faster steps."""
    activation_checkpointing: bool = False
    """Recompute the activations of the blocks in the backward pass: far less memory, a third more time."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: a whole model in each process (ddp), or a shard of each weight (fsdp)."""
    device: str = "auto"
    """Device: auto (CUDA if available, else MPS, else CPU), cpu, cuda, cuda:1 or mps."""
    seed: int = 0
    """Seed of the synthetic images, the initialisation, the order of the images and their augmentation."""

    def __post_init__(self):
        for name in ("duration", "evaluate_every", "save_every"):
            number, _ = parse_duration(getattr(self, name), name=name)
            check_fields("", self, {name: (name == "duration" or number > 0, "a duration above 0")})
        micro, ema = self.micro_batch_size, self.ema
        is_divisor = micro is None or (micro >= 1 and self.batch_size % micro == 0)
        is_valid = {
            "batch_size": (self.batch_size >= 1, "at least 1 image"),
            "micro_batch_size": (is_divisor, f"a divisor of batch_size, {self.batch_size}"),
            "ema": (ema is None or 0 <= ema < 1, "a decay of at least 0 and below 1, or None for no EMA"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "a number of at least 0 and below 1"),
            "seed": (0 <= self.seed < 2**32, "an integer of at least 0 and below 2**32"),
        }
        check_fields("", self, is_valid)
        if self.sharding == "fsdp" and ema is not None:
            raise UserError("sharding is fsdp and ema is set; EMA weights are not sharded. Use sharding ddp, or ema None.")
        if self.sharding == "fsdp" and self.model.sharing == "network":
            raise UserError("sharding is fsdp and model.sharing is network; FSDP can't shard a shared map. Use sharding ddp.")

    def to_json(self) -> str:
        """Write the recipe as JSON text, for people and for `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = "recipe.json") -> "Recipe":
        """Read the text that `to_json` wrote, under present or old names. Raises UserError, naming `source`, for other text."""
        try:
            plain = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{source} is not JSON ({error}). Restore it, or train in another folder.") from None
        return _from_plain(cls, current_names(plain) if isinstance(plain, dict) else plain, source)

    def override(self, changes: dict[str, Any]) -> "Recipe":
        """Copy the recipe with other values of options, by dotted names: `recipe.override({"optim.lr": 1e-3, "seed": 1})`."""
        recipe = self
        for name, value in changes.items():
            if name not in recipe.flatten():
                raise UserError(f"a recipe has no option {name!r}.{near(name, recipe.flatten())}")
            section, _, leaf = name.rpartition(".")
            if section:
                leaf, value = section, dataclasses.replace(getattr(recipe, section), **{leaf: value})
            recipe = dataclasses.replace(recipe, **{leaf: value})
        return recipe

    def flatten(self) -> dict[str, Any]:
        """List all options by dotted names, as on the command line: {"model.name": …, …, "seed": …}."""
        flat: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if dataclasses.is_dataclass(value):
                flat |= {f"{f.name}.{inner.name}": getattr(value, inner.name) for inner in dataclasses.fields(value)}
            else:
                flat[f.name] = value
        return flat

    def find_difference(self, other: "Recipe") -> tuple[str, Any, Any] | None:
        """Find the first option that makes another recipe compute something else: (name, own value, the other's value)."""
        own, others = self.flatten(), other.flatten()
        return next(((n, own[n], others[n]) for n in own if n not in NOT_COMPARED and own[n] != others[n]), None)


_type_hints = cache(get_type_hints)  # slow, and records have hundreds of recipes


def _from_plain(kind: Any, value: Any, source: str) -> Any:
    """Convert what JSON has (dict, list, str) to the type of a field (dataclass, tuple, Path)."""
    if value is None:
        return None
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(option for option in get_args(kind) if option is not type(None))
    is_section = dataclasses.is_dataclass(kind)
    if is_section:
        if not isinstance(value, dict):
            raise UserError(f"{source} is not a recipe: {value!r:.40} is in the place of {kind.__name__}")
        hints = _type_hints(kind)
        for name in value:
            if name not in hints:
                raise UserError(f"{source} has an option {name!r}, which this version does not know.{near(name, hints)}")
        return kind(**{name: _from_plain(hints[name], inner, source) for name, inner in value.items()})
    if get_origin(kind) is tuple:
        return tuple(value)
    return Path(value) if kind is Path else value
