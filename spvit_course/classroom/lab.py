"""Opening the course: the student's copies, in JupyterLab, at the first lesson."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from spvit_mini.errors import UserError

from .copies import WORK, build_copies
from .execution import kernel_environment

# No news, no updates (the course needs no network), and nothing of nbgrader, which graders may have in this Python too.
SETTINGS = Path(__file__).parent / "jupyter"
WORKSPACES = ".workspaces"  # in the folder of copies, so that JupyterLab restores the tabs of this folder alone


def open_lab(options: Sequence[str] = (), *, work: Path = WORK) -> None:
    """Make or update the copies and serve them in JupyterLab until it is stopped.

    `options` are JupyterLab's own, such as --no-browser or --port=9000. It listens on this machine alone, and asks for
    the token that it prints as part of its address. Raises UserError if JupyterLab is not installed.
    """
    if find_spec("jupyterlab") is None:
        raise UserError("JupyterLab is not installed in this Python. Use `pip install --editable .[lab]` in the project's folder")
    report = build_copies(work)
    for copy in report:
        if copy.status != "unchanged":
            print(copy)
    first = next(copy.name for copy in report if copy.status != "unread")
    print(f"Your copies are in {work}: work there. JupyterLab starts now; stop it with Ctrl-C.", flush=True)

    from jupyterlab.labapp import LabApp

    os.environ.update(kernel_environment())
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join([str(SETTINGS), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])])
    fixed = [
        f"--ServerApp.root_dir={work}",
        f"--LabApp.workspaces_dir={work / WORKSPACES}",
        f"--LabApp.default_url=/lab/tree/{first}",
        "--ServerApp.ip=127.0.0.1",
        "--Application.log_level=WARN",  # the address is printed all the same
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # as in most containers; JupyterLab asks to be told
        fixed.append("--allow-root")
    # In this process, so that Ctrl-C and a kill reach JupyterLab itself, on every system.
    LabApp.launch_instance([*fixed, *options])
