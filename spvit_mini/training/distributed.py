"""One process or many: what the training loop needs from torch.distributed.

`torchrun` starts one process per device and sets RANK, WORLD_SIZE and LOCAL_RANK. Without torchrun the group has one process,
and every function here does nothing. Therefore one loop serves all cases, from one CPU to many hosts:

    each process loads its share of every batch           data/sampler.py
    gradients are averaged during the backward pass       DistributedDataParallel, or FSDP with sharded weights
    each process evaluates a shard of the validation set  `ValidationShard`; `ProcessGroup.sum` adds up the exact counts
    rank 0 alone writes files and prints                  `ProcessGroup.run_on_main`
    how processes find each other, and what an error does `open_process_group`, rendezvous.py
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
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from ..errors import UserError, describe_failure
from ..vit import VisionModel
from . import rendezvous

T = TypeVar("T", bound=Any)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model together, and this one's `rank` among them; `local_rank` is its device on its host."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints for all."""
        return self.rank == 0

    def silence_others(self) -> AbstractContextManager:
        """Suppress stderr (progress, warnings) in all processes but the main one."""
        return nullcontext() if self.is_main else redirect_stderr(io.StringIO())

    def run_on_main(self, work: Callable[[], Any]) -> None:
        """Call a function in the main process while the others wait. All processes raise its UserError."""
        error: list[str | None] = [None]
        if self.is_main:
            try:
                work()
            except UserError as raised:
                if self.world_size == 1:
                    raise
                error = [str(raised)]
        if self.world_size > 1:
            dist.broadcast_object_list(error)
        if error[0] is not None:
            raise UserError(error[0])

    def max(self, number: int, device: torch.device) -> int:
        """Reduce an integer of each process to the maximum."""
        if self.world_size == 1:
            return number
        numbers = torch.tensor(number, device=device)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def sum(self, sums: T) -> T:
        """Reduce a dataclass of scalar tensors of each process to their sums."""
        if self.world_size == 1:
            return sums
        values = {f.name: getattr(sums, f.name) for f in fields(sums)}
        totals = torch.stack([value.double() for value in values.values()])  # exact for integers up to 2⁵³
        dist.all_reduce(totals)
        return replace(sums, **{n: total.to(v.dtype) for (n, v), total in zip(values.items(), totals, strict=True)})


@contextmanager
def open_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, if it did, for the duration of the block.

    If the block fails by a user's mistake in one process, the others, which wait for it, end with the same error.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield ProcessGroup()
        return
    group = ProcessGroup(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    is_owner, is_done = not dist.is_initialized(), False
    if is_owner:
        backend = "nccl" if device.type == "cuda" else "gloo"
        device_id = device if device.type == "cuda" else None
        store = rendezvous.open_attempt_store() if group.world_size > 1 else dist.HashStore()
        dist.init_process_group(backend, store=store, rank=group.rank, world_size=group.world_size, device_id=device_id)
    try:
        yield group
        is_done = True
    except Exception as error:
        if (line := describe_failure(error)) and is_owner:
            with suppress(dist.DistError):  # the store ended with the first process
                store.set("reason", rendezvous.add_process(line))
        if line or not (isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))):
            raise
        reason = "the connection to the other processes is lost; one of them died or was killed, and torchrun reports which"
        reason = f"{reason}. Use --resume to continue from the last saved state."
        with suppress(dist.DistError):
            reason = store.get("reason").decode() if is_owner and store.check(["reason"]) else reason
        raise UserError(reason) from error
    finally:
        # With gloo, leaving ends the wait of the others. With NCCL it may wait for them, while they wait for this process.
        if is_owner and (is_done or device.type != "cuda"):
            dist.destroy_process_group()


def is_main_process() -> bool:
    """Whether this process prints for all, also before and after the process group exists."""
    return int(os.environ.get("RANK", 0)) == 0


def count_restarts() -> int:
    """Count how often torchrun has restarted this process because a process of its host died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def parallelise(model: VisionModel, group: ProcessGroup, device: torch.device, *, sharding: str) -> nn.Module:
    """Wrap a model in DDP or FSDP, which average the gradients over the processes during the backward pass."""
    if group.world_size == 1:
        return model
    if sharding == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def synchronise_batch_norms(model: VisionModel, group: ProcessGroup, device: torch.device) -> VisionModel:
    """Convert batch norms to statistics of the global batch. torch supports this on CUDA only; elsewhere they stay local."""
    is_needed = group.world_size > 1 and device.type == "cuda"
    return nn.SyncBatchNorm.convert_sync_batchnorm(model) if is_needed else model


def average_batch_norms(model: nn.Module, group: ProcessGroup) -> None:
    """Average the running statistics of local batch norms over the processes, so that all evaluate the same model."""
    if group.world_size > 1:
        for norm in model.modules():
            if isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm):
                for statistic in (norm.running_mean, norm.running_var):
                    if statistic is not None:
                        dist.all_reduce(statistic.div_(group.world_size))


@contextmanager
def gradient_sync(model: Any, *, enabled: bool) -> Iterator[None]:
    """Average gradients over the processes in a backward pass; if not `enabled`, only accumulate them in each process."""
    if hasattr(model, "set_requires_gradient_sync"):  # an FSDPModule, whose import takes a second
        model.set_requires_gradient_sync(enabled)
    with model.no_sync() if isinstance(model, DistributedDataParallel) and not enabled else nullcontext():
        yield


def gather_full(value: Any) -> Any:
    """Gather all sharded tensors in nested dictionaries, as full tensors on the CPU. All processes take part."""
    if hasattr(value, "full_tensor"):  # a DTensor
        return value.full_tensor().cpu()  # a device has no memory for all of them at once
    return {key: gather_full(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def shard_like(value: Tensor, like: Any) -> Tensor:
    """Cut this process's shard from a full tensor, if the tensor `like` that it replaces is sharded."""
    if hasattr(like, "device_mesh") and value.shape == like.shape:  # a DTensor
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return value


def full_state_dicts(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Collect the full weights and the full optimiser state, independent of the number of processes and the sharding."""
    return {"model": gather_full(model.state_dict()), "optimiser": gather_full(optimiser.state_dict())}


def load_full_state_dicts(state: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Load what `full_state_dicts` collected; the settings of the optimiser stay. Raises an error for another model's state."""
    own = model.state_dict()
    model.load_state_dict({name: shard_like(value, own.get(name)) for name, value in state["model"].items()})
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for i, saved in state["optimiser"]["state"].items():
        if not parameters[i].shape == saved["exp_avg"].shape == saved["exp_avg_sq"].shape or saved["step"].shape:
            raise ValueError(f"the moments of parameter {i} have other shapes")
        moments[i] = {name: shard_like(value, parameters[i]) for name, value in saved.items()}
    optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})


class ValidationShard(Dataset):
    """The shard of a validation set that one process evaluates: every `world_size`-th image, beginning at its rank.

    All shards have the same length, because some models must be called equally often in all processes. They are padded with
    the first image and the label −1, which `metrics.evaluate` does not count.
    """

    def __init__(self, images: Any, group: ProcessGroup) -> None:
        self.images, self.group = images, group

    def __len__(self) -> int:
        return -(-len(self.images) // self.group.world_size)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        index = position * self.group.world_size + self.group.rank
        if index < len(self.images):
            return self.images[index]
        return self.images[0][0], -1
