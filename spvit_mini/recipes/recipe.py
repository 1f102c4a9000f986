"""A recipe: everything that decides how a training run ends, in one dataclass that saves, reads and compares itself.

Each field's docstring is what `python -m spvit_mini train RECIPE --help` says of it. The recipes themselves, by name,
are in recipes/; a run folder keeps the one that was run as recipe.json.
"""

import dataclasses
import json
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from ..data.options import AugmentOptions, DataOptions
from ..errors import UserError, near
from ..renamed import current_names
from .duration import parse_length
from .options import ModelOptions, OptimOptions, TokenLabelOptions

# These may change between the parts of a resumed run: they say where the work is done, not what is computed.
PLACES = ("device", "data.root", "data.workers", "data.download", "token_labels.folder", "micro_batch_size", "sharding", "init_from")


@dataclass(frozen=True)
class Recipe:
    """How to train one model on one set of images. Lengths are texts: "30 epochs", "240 steps", "50000 images"."""

    name: tyro.conf.Suppress[str] = "unnamed"
    """The name under which `get_recipe` knows it."""
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    token_labels: TokenLabelOptions = field(default_factory=TokenLabelOptions)
    init_from: Path | None = None
    """Weights to begin with: a run folder or a weights file. The head starts anew where the classes are others."""
    duration: str = "10 epochs"
    """How long to train."""
    batch_size: int = 100
    """Images in a step, over all processes. An epoch is floor(training images / batch) steps."""
    micro_batch_size: int | None = None
    """Images that a process takes at once; it takes so many after another as its part of the batch asks for, and adds up
    their gradients. None: its whole part."""
    label_smoothing: float = 0.0
    """Share of each training label that is spread evenly over all classes. Validation loss is always without."""
    ema: float | None = None
    """Decay of a running average of the weights, kept and evaluated beside them; 0.9999 remembers about 10,000 steps. It
    forgets faster at first, as (1 + steps) / (10 + steps). None: no average."""
    evaluate_every: str = "1 epoch"
    """How often the whole validation part is scored, which writes a row of metrics.csv; once more at the end."""
    save_every: str = "1 epoch"
    """How often the whole state is saved for --resume; once more at the end."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the model's passes: auto is bfloat16 autocast on CUDA and float32 elsewhere."""
    compile: bool = False
    """Compile the model (torch.compile): a minute or more at the start, faster steps after it."""
    activation_checkpointing: bool = False
    """Keep no activations inside the blocks, and compute them again in the backward pass: far less memory, a third more
    time."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: every one holds the whole model (ddp), or a part of each weight (fsdp)."""
    device: str = "auto"
    """Where to compute: auto (CUDA if there, else MPS, else CPU), cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Decides the made images, the start of the model, the order of the images and their augmentation."""

    def __post_init__(self):
        for name in ("duration", "evaluate_every", "save_every"):
            number, _ = parse_length(getattr(self, name), name=name)
            if name != "duration" and not number:
                raise UserError(f"{name} is {getattr(self, name)!r}; it must be above 0")
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}; a step needs at least 1 image")
        if self.micro_batch_size is not None and (self.micro_batch_size < 1 or self.batch_size % self.micro_batch_size):
            raise UserError(f"micro_batch_size is {self.micro_batch_size}; it must divide batch_size, {self.batch_size}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UserError(f"ema is {self.ema}; it must be at least 0 and below 1, or None for no average")
        if self.ema is not None and self.sharding == "fsdp":
            raise UserError("an average of the weights (ema) is kept whole in each process; it needs sharding ddp")
        if self.sharding == "fsdp" and self.model.sharing == "network":
            raise UserError("FSDP takes the blocks apart, and so cannot keep a map that all of them share; use sharding ddp")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing is {self.label_smoothing}; it must be at least 0 and below 1")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed is {self.seed}; it must be at least 0 and below 2**32")

    def to_json(self) -> str:
        """Write the recipe as JSON, for people and for `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = "recipe.json") -> "Recipe":
        """Read what `to_json` wrote. Raises UserError, naming `source`, if it is not that."""
        try:
            plain = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{source} is no JSON text ({error}); restore it, or train in another folder") from None
        return _from_plain(cls, current_names(plain) if isinstance(plain, dict) else plain, source)

    def but(self, changes: dict[str, Any]) -> "Recipe":
        """Change options by their dotted names: `recipe.but({"optim.lr": 1e-3, "seed": 1})`."""
        recipe = self
        for name, value in changes.items():
            if name not in recipe.flat():
                raise UserError(f"a recipe has no option {name!r}.{near(name, recipe.flat())}")
            section, _, leaf = name.rpartition(".")
            if section:
                part = dataclasses.replace(getattr(recipe, section), **{leaf: value})
                recipe = dataclasses.replace(recipe, **{section: part})
            else:
                recipe = dataclasses.replace(recipe, **{leaf: value})
        return recipe

    def flat(self) -> dict[str, Any]:
        """List all options by their dotted names, as on the command line: {"model.name": …, …, "seed": …}."""
        flat = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if dataclasses.is_dataclass(value):
                flat |= {f"{f.name}.{inner.name}": getattr(value, inner.name) for inner in dataclasses.fields(value)}
            else:
                flat[f.name] = value
        return flat

    def difference(self, other: "Recipe") -> tuple[str, Any, Any] | None:
        """Find the first option in which another recipe would compute something else: (name, mine, the other's)."""
        mine, others = self.flat(), other.flat()
        return next(((n, mine[n], others[n]) for n in mine if n not in PLACES and mine[n] != others[n]), None)


def _from_plain(kind: Any, value: Any, source: str) -> Any:
    """Turn what JSON knows (dict, list, str) into what a field's type asks for (dataclass, tuple, Path)."""
    if value is None:
        return None
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(option for option in get_args(kind) if option is not type(None))
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise UserError(f"{source} is no recipe: where {kind.__name__} should be there is {value!r:.40}")
        hints = get_type_hints(kind)
        for name in value:
            if name not in hints:
                raise UserError(
                    f"{source} has an option {name!r}, which this version does not know.{near(name, hints)}"
                )
        return kind(**{name: _from_plain(hints[name], inner, source) for name, inner in value.items()})
    if get_origin(kind) is tuple:
        return tuple(value)
    return Path(value) if kind is Path else value
