"""A recipe: everything that decides the result of a training run, in one dataclass.

The docstring of a field is its help text in `python -m spvit_mini train RECIPE --help`. The recipes by name are beside this
file. A run folder keeps its recipe as recipe.json.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Suppress

from ..data.options import AugmentOptions, DataOptions
from ..errors import UserError, near
from ..fields import BelowOne, Count, Device, Seed, check_fields, check_value, naming, parse_json
from ..renamed import current_names
from .duration import Duration, Interval
from .options import ModelOptions, OptimOptions, TokenLabelOptions

# These options decide where the work is done, not what is computed, but for the content of the files that some of them name.
NOT_COMPARED = (
    "device", "data.root", "data.workers", "data.download", "data.on_corrupt_image", "token_labels.folder", "micro_batch_size",
    "sharding", "init_from", "imports",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How to train one model on one dataset. Durations are texts: "30 epochs", "240 steps", "50000 images"."""

    name: Suppress[str] = "unnamed"
    """Name by which `get_recipe` finds the recipe."""
    imports: Suppress[tuple[str, ...]] = ()
    """Modules or files that register this run's attention, spatial map or recipe; set by `--import`."""
    sources: Suppress[dict[str, str]] = field(default_factory=dict, compare=False)
    """No option, but what a run learned from: fingerprints by option (identity.py), set when the run begins."""
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    token_labels: TokenLabelOptions = field(default_factory=TokenLabelOptions)
    init_from: Path | None = None
    """Pretrained weights: a run folder or a weights file. The head is re-initialised if the classes differ. None: random
    initialisation."""
    duration: Duration = "10 epochs"
    """Duration of the training."""
    batch_size: Count = 100
    """Global batch size: images per step, over all processes. An epoch is floor(training images / batch size) steps."""
    micro_batch_size: Count | None = None
    """Images that a process computes at a time; gradients are accumulated over its share of the batch. None: the whole
    share at once."""
    label_smoothing: BelowOne = 0.0
    """Share of each training label that is spread evenly over all classes. The validation loss is computed without it."""
    ema: BelowOne | None = None
    """Decay of the EMA weights (exponential moving average), which are evaluated too; 0.9999 averages over about 10,000
    steps. The decay warms up as (1 + steps) / (10 + steps). None: no EMA."""
    evaluate_every: Interval = "1 epoch"
    """Interval between evaluations on the validation set, a row of metrics.csv each; the last step is always evaluated."""
    save_every: Interval = "1 epoch"
    """Interval between saved training states, for --resume; the last step is always saved."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; auto: bfloat16 autocast on CUDA, float32 elsewhere."""
    compile: bool = False
    """Compile the model with torch.compile: a minute or more at the start, then faster steps."""
    activation_checkpointing: bool = False
    """Recompute the activations of the blocks in the backward pass: far less memory, a third more time."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: a whole model in each process (ddp), or a shard of each weight (fsdp)."""
    device: Device = "auto"
    """Device: auto (CUDA if available, else MPS, else CPU), cpu, cuda, cuda:1 or mps."""
    seed: Seed = 0
    """Seed of the synthetic images, the initialisation, the order of the images and their augmentation."""

    def __post_init__(self):
        check_fields(self)
        micro = self.micro_batch_size
        if micro is not None and self.batch_size % micro:
            raise UserError(f"micro_batch_size is {micro}; expected a divisor of batch_size, {self.batch_size}")
        if self.sharding == "fsdp" and self.ema is not None:
            raise UserError("sharding is fsdp and ema is set; EMA weights are not sharded. Use sharding ddp, or ema None.")
        if self.sharding == "fsdp" and self.model.sharing == "network":
            raise UserError("sharding is fsdp and model.sharing is network; FSDP can't shard a shared map. Use sharding ddp.")

    def to_json(self) -> str:
        """Write the recipe as JSON text, for people and for `from_json`."""
        plain = {name: value for name, value in dataclasses.asdict(self).items() if name != "sources" or value}
        return json.dumps(plain, indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = "recipe.json") -> "Recipe":
        """Read the text that `to_json` wrote, under present or old names. Raises UserError, naming `source`, for other text."""
        plain = parse_json(dict[str, Any], text, source)
        with naming(source):
            return check_value(cls, current_names(plain), "the recipe")

    def override(self, changes: dict[str, Any]) -> "Recipe":
        """Copy the recipe with other values of options, by dotted names: `recipe.override({"optim.lr": 1e-3, "seed": 1})`."""
        own: dict[str, Any] = {}
        sections: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            if name not in self.flatten():
                raise UserError(f"a recipe has no option {name!r}.{near(name, self.flatten())}")
            section, _, leaf = name.rpartition(".")
            (sections.setdefault(section, {}) if section else own)[leaf] = value
        own |= {name: dataclasses.replace(getattr(self, name), **inner) for name, inner in sections.items()}
        return dataclasses.replace(self, **own)

    def flatten(self) -> dict[str, Any]:
        """List all options by dotted names, as on the command line: {"model.name": …, …, "seed": …}."""
        flat: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name == "sources":
                continue
            if dataclasses.is_dataclass(value):
                flat |= {f"{f.name}.{inner.name}": getattr(value, inner.name) for inner in dataclasses.fields(value)}
            else:
                flat[f.name] = value
        return flat

    def find_difference(self, other: "Recipe") -> tuple[str, Any, Any] | None:
        """Find the first option that makes another recipe compute something else: (name, own value, the other's value)."""
        return next(self.list_differences(other), None)

    def list_differences(self, other: "Recipe") -> Iterator[tuple[str, Any, Any]]:
        """List the options that make another recipe compute something else, as `find_difference` does.

        Files are compared by their fingerprints if both are known, otherwise only as to whether both recipes name some.
        """
        own, others = self.flatten(), other.flatten()
        for name in own:
            values = own[name], others[name]
            if name in self.sources and name in other.sources:
                values = self.sources[name], other.sources[name]
            elif name in NOT_COMPARED and (name not in ("init_from", "token_labels.folder") or None not in values):
                continue
            if values[0] != values[1]:
                yield name, *values
