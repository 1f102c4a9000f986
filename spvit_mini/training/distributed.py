"""One process or many: what a run must know of the others that train the same model.

`torchrun` starts a process for each device and tells each one, by environment variables, who it is. Without torchrun a
run is a team of one, and every method here does nothing. So the loop has one path, from one CPU to many hosts:

    each process takes its part of every batch            data/sampler.py
    their gradients are averaged while they are computed  DistributedDataParallel, or FSDP in parts
    each scores its part of the validation images         `Share`, and `Team.total` adds up the counts, exactly
    rank 0 alone writes files and shows progress          `Team.agree`
    how they meet, and what happens if one fails          `joined`, news.py
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from ..errors import UserError
from . import rendezvous

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """Who this process is among those that train the model: `rank` of `world`, and which device of its own host."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def shown_once(self) -> AbstractContextManager:
        """Let the main process alone show the progress and the warnings of what all do alike."""
        return nullcontext() if self.main else redirect_stderr(io.StringIO())

    def agree(self, work: Callable[[], Any]) -> None:
        """Let the main process alone do something, while the others wait; a UserError of it is raised in all."""
        error = [None]
        if self.main:
            try:
                work()
            except UserError as raised:
                if self.world == 1:
                    raise
                error = [str(raised)]
        if self.world > 1:
            dist.broadcast_object_list(error)
        if error[0] is not None:
            raise UserError(error[0])

    def largest(self, number: int, device: torch.device) -> int:
        """Find the largest of the numbers that all processes name."""
        if self.world == 1:
            return number
        numbers = torch.tensor(number, device=device)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def total(self, counts: T) -> T:
        """Add up a dataclass of counts, each a tensor of one number, over all processes."""
        if self.world == 1:
            return counts
        names = [f.name for f in fields(counts)]
        sums = torch.stack([getattr(counts, name).double() for name in names])  # exact for whole numbers up to 2⁵³
        dist.all_reduce(sums)
        return replace(
            counts, **{name: value.to(getattr(counts, name).dtype) for name, value in zip(names, sums, strict=True)}
        )


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Join the processes that torchrun started, if it did, for as long as the block lasts.

    If the block ends by a UserError in one process alone, the others, which wait for it, end by the same one.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Team()
        return
    team = Team(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    mine, in_order = not dist.is_initialized(), False
    if mine:
        backend = "nccl" if device.type == "cuda" else "gloo"
        device_id = device if device.type == "cuda" else None
        store = rendezvous.of_this_attempt() if team.world > 1 else dist.HashStore()
        dist.init_process_group(backend, store=store, rank=team.rank, world_size=team.world, device_id=device_id)
    try:
        yield team
        in_order = True
    except UserError as error:
        if mine:
            with suppress(dist.DistError):  # gone with the first process
                store.set("reason", rendezvous.of_this_process(str(error)))
        raise
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = "it lost touch with the others, of which one has died or was killed: torchrun says which"
        reason = f"{reason}. --resume goes on from the last saved state"
        with suppress(dist.DistError):
            reason = store.get("reason").decode() if mine and store.check(["reason"]) else reason
        raise UserError(reason) from error
    finally:
        # With gloo, to leave breaks the others' wait. With NCCL it may mean to wait for them, who wait for this process.
        if mine and (in_order or device.type != "cuda"):
            dist.destroy_process_group()


def speaks() -> bool:
    """Say whether this process is the one that shows the user something, also when the team has parted."""
    return int(os.environ.get("RANK", 0)) == 0


def restarts() -> int:
    """Count how often torchrun has started this process anew, after one of its host's had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def spread_out(model: nn.Module, team: Team, device: torch.device, *, sharding: str) -> nn.Module:
    """Wrap a model, so that its gradients are averaged over the team while they are computed."""
    if team.world == 1:
        return model
    if sharding == "fsdp":
        for block in model.blocks:
            fully_shard(block)
        return fully_shard(model)
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def synchronised_norms(model: nn.Module, team: Team, device: torch.device) -> nn.Module:
    """Let batch norms see the whole batch of all processes. torch has this on CUDA only; elsewhere each sees its own."""
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if team.world > 1 and device.type == "cuda" else model


def average_norms(model: nn.Module, team: Team) -> None:
    """Average what batch norms remember of the images, where each process sees only its own: all then score alike."""
    if team.world > 1:
        for norm in model.modules():
            if isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm):
                for memory in (norm.running_mean, norm.running_var):
                    dist.all_reduce(memory.div_(team.world))


@contextmanager
def gradients_kept(model: nn.Module, last: bool) -> Iterator[None]:
    """Leave gradients where they are while micro-batches add up, and average them over the team with the last one."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    with model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext():
        yield


def whole(value: Any) -> Any:
    """Put together all tensors that lie in parts over the team, however deep in dictionaries: a team's joint work."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()  # a device has no room for all of them at once
    return {key: whole(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def part_of(value: Tensor, like: Tensor | None) -> Tensor:
    """Take this process's part of a whole tensor, if `like`, which it shall replace, lies in parts."""
    if isinstance(like, DTensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return value


def states(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Collect the whole weights and the optimiser's whole memory: the same, however many processes hold them."""
    return {"model": whole(model.state_dict()), "optimiser": whole(optimiser.state_dict())}


def put_back(state: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put back what `states` collected. Raises RuntimeError or ValueError if it is another model's."""
    own = model.state_dict()
    model.load_state_dict({name: part_of(value, own.get(name)) for name, value in state["model"].items()})
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    memory = {
        i: {name: part_of(value, parameters[i]) for name, value in of_one.items()}
        for i, of_one in state["optimiser"]["state"].items()
    }
    optimiser.load_state_dict(state["optimiser"] | {"state": memory})


class Share(Dataset):
    """One process's part of a validation set: every `world`-th image, from its rank on.

    All parts are of one length, since some models must be called equally often by all; where the images don't suffice,
    the first one is repeated with the label −1, which `metrics.evaluate` does not count.
    """

    def __init__(self, images: Dataset, team: Team) -> None:
        self.images, self.team = images, team

    def __len__(self) -> int:
        return -(-len(self.images) // self.team.world)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        index = place * self.team.world + self.team.rank
        if index < len(self.images):
            return self.images[index]
        return self.images[0][0], -1
