"""The script for Slurm in docs/cluster.md, run with stand-ins for Slurm's programs: time is up, all save, it goes on."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from spvit_mini.training.checkpoint import read_state

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("signals")]
PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"
STAND_INS = {
    "srun": 'echo $$ >srun.pid; exec "$@"',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    "scancel": '[ "$*" = "--signal=TERM 7" ] && kill -TERM "$(cat srun.pid)"',
    "scontrol": '[ "$1" = requeue ] && echo "requeued $2"; [ "$1" = show ] && echo localhost; true',
}


@pytest.fixture
def script(tmp_path):
    """Write the script and the stand-ins, for one host of two processes and a model that is trained in no time."""
    text = re.search(r"```bash\n(#!/bin/bash\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    options = (
        "--run-dir run --model.dim 16 --model.depth 2 --duration='100000 steps' --evaluate-every='20 steps' --device cpu"
    )
    for old, new in (
        ("--nproc-per-node 8", "--nproc-per-node 2"),
        ("29500", port),
        ("spvit_s_imagenet --data.root /datasets --run-dir runs/spvit_s", f"vit_mini_compass6 {options}"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "script").write_text(text)
    for name, line in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path / "script"


def test_time_is_up_twice_and_the_job_goes_on_where_it_was(script, tmp_path):
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "localhost", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    step = 0
    for sign in ("step ", "resumed from run/last.pt at step"):
        with subprocess.Popen(["bash", str(script)], cwd=tmp_path, env=environment, **piped) as job:
            while not (line := job.stdout.readline()).startswith(sign):
                assert line, job.stderr.read()
            assert not step or line.split()[-1] == str(step)
            job.send_signal(signal.SIGUSR1)
            out, err = job.communicate(timeout=60)
        step, before = read_state(tmp_path / "run" / "last.pt")["position"]["step"], step
        assert step >= max(1, before)
        # One of the two processes speaks, and once.
        assert [line for line in out.splitlines() if not line.startswith(("step", "best"))] == [
            f"stopped at step {step} of 100000, saved in run; resume with: "
            "python -m spvit_mini train vit_mini_compass6 --run-dir run --resume",
            "requeued 7",
        ]
        assert err.count("saving and stopping") == 1 and "error:" not in err
