"""Trained models as the programs are asked for them: by a run folder or a weights file, and which of its weights."""

from pathlib import Path
from typing import Literal

from ..errors import UserError
from ..vit import ViT
from ..weights import find_weights, load_state, load_weights
from ..zoo import model_from_weights
from . import checkpoint

Which = Literal["best", "last", "ema"]


def open_trained(
    path: Path, *, weights: Which = "best", image_size: int | tuple[int, int] | None = None
) -> tuple[ViT, dict[str, str]]:
    """Rebuild a trained model, in eval mode, and give the metadata of its weights.

    Args:
        path: a run folder or a weights file.
        weights: those that scored best, or the newest of a run folder: as they were trained (last), or their moving average (ema).
        image_size: for other images than those of the file; positions are interpolated.

    Raises UserError if there is no such thing.
    """
    file = find_weights(path)
    model, metadata = model_from_weights(file, image_size=image_size).eval(), load_weights(file)[1]
    if weights == "best":
        return model, metadata
    if file == path:
        kept = metadata.get("weights", "last")
        raise UserError(f"{path} holds {kept} weights and no others; --weights {weights} is for a run folder")
    if (found := checkpoint.load_state(path)) is None:
        raise UserError(f"{path} holds no state (last.pt) to take the newest weights from; use --weights best")
    state, source = found
    newest = state["model"]
    if weights == "ema":
        if state["ema"] is None:
            raise UserError(f"{path} holds no averaged weights, since it was trained without ema; use --weights last")
        # torch's AveragedModel counts its updates, and holds the model as its part.
        newest = {n.removeprefix("module."): value for n, value in state["ema"].items() if n != "n_averaged"}
    load_state(model, newest, source=str(source))
    del metadata["val_top1"]  # of the best weights
    return model, metadata | {"weights": weights, "step": str(state["position"]["step"])}
