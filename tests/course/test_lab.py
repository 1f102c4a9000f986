"""`lab`: JupyterLab on this machine alone, with its token, at the first lesson."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

import spvit_course.classroom.lab as lab_module
from spvit_course.classroom.lab import WORKSPACES, open_lab
from spvit_course.lessons import ROOT
from spvit_mini.errors import UserError

FIRST = "00_start_here.ipynb"


def test_a_missing_jupyterlab_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(lab_module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="JupyterLab is not installed in this Python"):
        open_lab(work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_jupyterlab_stays_on_this_machine_with_its_token(monkeypatch, tmp_path, capsys):
    from jupyterlab.labapp import LabApp

    asked = []
    monkeypatch.setattr(LabApp, "launch_instance", asked.extend)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    open_lab(["--no-browser", "--port=9000"], work=tmp_path / "work")
    assert "--ServerApp.ip=127.0.0.1" in asked
    assert f"--ServerApp.root_dir={tmp_path / 'work'}" in asked
    assert f"--LabApp.workspaces_dir={tmp_path / 'work' / WORKSPACES}" in asked
    assert f"--LabApp.default_url=/lab/tree/{FIRST}" in asked
    assert asked[-2:] == ["--no-browser", "--port=9000"]
    assert not any("token" in option or "password" in option for option in asked)
    assert f"{FIRST}: made" in capsys.readouterr().out
    open_lab(work=tmp_path / "work")
    assert FIRST not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="ends the server by a signal")
def test_it_serves_the_first_lesson(tmp_path, wait_until_it_listens):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        busy = probe.getsockname()[1]
        probe.listen()
        work = tmp_path / "work"
        command = [sys.executable, "-m", "spvit_course", "lab", "--no-browser", f"--port={busy}", "--out", str(work)]
        environment = os.environ | {"HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        lines = []
        try:
            for line in server.stderr:
                lines.append(line)
                if found := re.search(r"(http://\S+?)/(\S+)\?token=(\w+)", line):
                    break
            base, page, token = found.groups()
            wait_until_it_listens(base)
            assert base.startswith("http://127.0.0.1:") and not base.endswith(f":{busy}")  # another port than the busy one
            assert page == f"lab/tree/{FIRST}"
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{base}/api/contents")
            assert refused.value.code == 403

            def ask(address, **options):
                request = urllib.request.Request(f"{base}/{address}", headers={"Authorization": f"token {token}"}, **options)
                with urllib.request.urlopen(request) as answer:
                    return answer.read().decode()

            assert FIRST in {entry["name"] for entry in json.loads(ask("api/contents"))["content"]}
            settings = json.loads(re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', ask(page), re.DOTALL)[1])
            assert "@jupyter/nbgrader" in settings["disabledExtensions"]  # its menu is for instructors
            tabs = json.dumps({"data": {}, "metadata": {"id": "default"}}).encode()
            ask("lab/api/workspaces/default", data=tabs, method="PUT")
            assert list((work / WORKSPACES).glob("default*")) and not list((tmp_path / "config").rglob("default*"))
        finally:
            server.send_signal(signal.SIGTERM)
            lines += server.stderr.readlines()
            server.wait()
        assert not [line for line in lines if line.startswith("[E")]
