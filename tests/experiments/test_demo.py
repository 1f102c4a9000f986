"""The demo, for one step: its table and its picture."""

import matplotlib.pyplot as plt
import pytest

from spvit_experiments import demo
from spvit_mini.errors import UserError


@pytest.mark.slow
def test_demo_prints_a_table_and_draws_a_picture(tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "demo.png"
    monkeypatch.setattr("sys.argv", ["demo", "--out", str(out), "--max-steps", "1"])
    demo.main()
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["model"] == ["parameters", "seconds", "accuracy"] and rows["chance"] == ["12.5%"]
    assert [rows[name][0] for name in demo.MODELS] == ["141,000", "143,064"]
    picture = plt.imread(out)
    assert picture.shape[0] > 500 and picture.std() > 0.05


def test_a_picture_that_cannot_be_written_is_said_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.argv", ["demo", "--out", str(tmp_path / "file" / "demo.png")])
    with pytest.raises(UserError, match="the figure .* cannot be written"):
        demo.main()
