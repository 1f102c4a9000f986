"""Several processes that train together, for tests: torchrun starts this file, and each process does a list of jobs.

A job is a dictionary: `recipe`, `out` (the file for what comes out, a process each: OUT.RANK), and what `train` takes
(`run_dir`, `resume`, `max_steps`). `double` computes in float64; of a job that is to be `refused`, the error comes out. `dies`
is a list of (attempt, rank, step): in that attempt of torchrun, that process kills itself before that step.
"""

import os
import pickle
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from spvit_mini.cli.program import run_program
from spvit_mini.errors import UserError
from spvit_mini.training import loop, train
from spvit_mini.training.distributed import gather_full, open_process_group

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@contextmanager
def in_float64():
    """Let all that computes in float32 compute in float64, where sums in another order differ by 1e-16 alone."""

    def doubled(_module, inputs):
        return tuple(x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(doubled)
    real = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = real
        hook.remove()


def do(job: dict) -> dict:
    """Train as a job says: rows, weights and averaged weights come out, or the error."""
    options = {name: job[name] for name in ("run_dir", "resume", "max_steps") if name in job}
    try:
        with in_float64() if job.get("double") else nullcontext():
            result = train(job["recipe"], progress=False, **options)
    except UserError as error:
        if not job.get("refused"):
            raise
        return {"error": str(error)}
    weights = {name: value.clone() for name, value in gather_full(result.model.state_dict()).items()}
    return {"rows": result.rows, "weights": weights, "ema": result.ema and result.ema.state_dict()}


def torchrun(
    *command: str,
    processes: int = 2,
    options: tuple[str, ...] = ("--standalone",),
    within: tuple[str, ...] = (),
    **more,
) -> subprocess.Popen:
    """Start torchrun, `within` another program or not, with a command of so many processes; its output is piped."""
    launch = [*within, *TORCHRUN, *options, "--nproc-per-node", str(processes), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more.pop("env", {})}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(launch, **{**piped, "env": environment, **more})


def together(
    jobs: list[dict], folder: Path, *, processes: int = 2, options: tuple[str, ...] = ("--standalone",)
) -> None:
    """Let so many processes do a list of jobs."""
    process = torchrun(*written(jobs, folder), processes=processes, options=options)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err


def written(jobs: list[dict], folder: Path) -> tuple[str, str]:
    """Write a list of jobs, and give the command that does them."""
    (folder / "jobs").write_bytes(pickle.dumps(jobs))
    return __file__, str(folder / "jobs")


def die(moments: list[tuple[int, int, int]]) -> None:
    """Arrange the death of this process before a step, if the moments hold one for it."""
    here = (int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"]))
    real = loop.lr_at

    def lr_at(step, **options):
        if (*here, step) in moments:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(step, **options)

    loop.lr_at = lr_at


def main() -> None:
    torch.set_num_threads(1)
    with open_process_group(torch.device("cpu")) as team:
        for job in pickle.loads(Path(sys.argv[1]).read_bytes()):
            if "dies" in job:
                die(job["dies"])
            result = do(job)
            torch.save(result, f"{job['out']}.{team.rank}")


if __name__ == "__main__":
    run_program(main)
