"""Several processes that train together, for tests: torchrun starts this file, and each process runs a list of jobs.

A job is a dictionary: `recipe`, `out` (each process writes its result to OUT.RANK), and options of `train` (`run_dir`, `resume`,
`max_steps`). `double` computes in float64. The result of a job with `is_refused` is its error. `dies` is a list of (attempt,
rank, step): in that attempt of torchrun, that process kills itself before that step.
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
    """Compute in float64 what is float32 otherwise: sums in a different order then differ by 1e-16 only."""

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


def run_job(job: dict) -> dict:
    """Run a job: return rows, weights and EMA weights, or the error."""
    options = {name: job[name] for name in ("run_dir", "resume", "max_steps") if name in job}
    try:
        with in_float64() if job.get("double") else nullcontext():
            result = train(job["recipe"], progress=False, **options)
    except UserError as error:
        if not job.get("is_refused"):
            raise
        return {"error": str(error)}
    weights = {name: value.clone() for name, value in gather_full(result.model.state_dict()).items()}
    return {"rows": result.rows, "weights": weights, "ema": result.ema and result.ema.state_dict()}


def start_torchrun(
    *command: str,
    processes: int = 2,
    options: tuple[str, ...] = ("--standalone",),
    within: tuple[str, ...] = (),
    **more,
) -> subprocess.Popen:
    """Start torchrun with a command and a number of processes, `within` another program or not; its output is piped."""
    launch = [*within, *TORCHRUN, *options, "--nproc-per-node", str(processes), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more.pop("env", {})}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(launch, **{**piped, "env": environment, **more})


def run_jobs(
    jobs: list[dict], folder: Path, *, processes: int = 2, options: tuple[str, ...] = ("--standalone",)
) -> None:
    """Run a list of jobs in several processes."""
    process = start_torchrun(*write_jobs(jobs, folder), processes=processes, options=options)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err


def write_jobs(jobs: list[dict], folder: Path) -> tuple[str, str]:
    """Write a list of jobs to a file, and return the command that runs them."""
    (folder / "jobs").write_bytes(pickle.dumps(jobs))
    return __file__, str(folder / "jobs")


def kill_before(moments: list[tuple[int, int, int]]) -> None:
    """Make this process kill itself before a step, if the moments have one for it."""
    here = (int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"]))
    real = loop.lr_at

    def lr_at(step, **options):
        if (*here, step) in moments:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(step, **options)

    loop.lr_at = lr_at


def main() -> None:
    torch.set_num_threads(1)
    with open_process_group(torch.device("cpu")) as group:
        for job in pickle.loads(Path(sys.argv[1]).read_bytes()):
            if "dies" in job:
                kill_before(job["dies"])
            result = run_job(job)
            torch.save(result, f"{job['out']}.{group.rank}")


if __name__ == "__main__":
    run_program(main)
