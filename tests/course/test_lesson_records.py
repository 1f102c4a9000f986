"""What lessons 04 and 07 say of their records."""

from spvit_experiments import paired, read_records


def test_lesson_04_says_which_tables_solve_the_task():
    runs = {}
    for row in read_records("lesson_04"):
        runs.setdefault((row["arm"], row["seed"]), []).append(row["val_top1"])
    solved = {"table": 2, "table_0.02": 1, "log_cpb": 5, "shaw1d": 4, "shaw2d": 2}
    assert {arm: sum(runs[arm, seed][-1] > 90 for seed in range(5)) for arm in solved} == solved
    between = {key: curve[-1] for key, curve in runs.items() if 60 < curve[-1] < 90}
    assert list(between) == [("table_0.02", 1)]  # "and nearly by another"
    tried = {arm: [] for arm in solved}
    for row in read_records("lesson_04-tuning"):
        if row["step"] == 240:
            tried[row["arm"].partition("@")[0]].append(row["val_top1"])
    assert {arm for arm, finals in tried.items() if max(finals) < 55} == {"table_0.02", "shaw2d"}
    assert {arm for arm, finals in tried.items() if max(finals) > 99} == {"table", "log_cpb", "shaw1d"}
    assert tried["table"][:2] == [100, 100] and tried["table"][2] < 55


def list_finals(arm, step=160):
    return [row["val_top1"] for row in read_records("lesson_07") if (row["arm"], row["step"]) == (arm, step)]


def test_lesson_07_says_that_the_initialisation_decides_and_the_gate_does_not():
    for arm in ("vit", "convit-no-local-start"):
        assert len(list_finals(arm)) == 5 and max(list_finals(arm)) < 30
    for arm in ("convit", "convit-frozen-gate", "psa"):
        assert len(list_finals(arm)) == 5 and min(list_finals(arm)) > 85
    assert min(list_finals("convit")) > 89 and max(list_finals("convit")) < 97
    for other in ("convit-frozen-gate", "psa"):
        gain = paired(list_finals("convit"), list_finals(other))
        assert gain.low < 0 < gain.high


def test_lesson_07_says_what_fewer_images_cost():
    for arm in ("convit", "psa"):
        assert min(list_finals(f"{arm}-25pct")) > 80 and max(list_finals(f"{arm}-25pct")) < 95
        assert min(list_finals(f"{arm}-5pct")) > 45 and max(list_finals(f"{arm}-5pct")) < 60
        for share in ("-25pct", "-5pct"):
            gain = paired(list_finals("convit" + share), list_finals("psa" + share))
            assert gain.low < 0 < gain.high


def test_lesson_07_says_which_heads_escape():
    rows = [row for row in read_records("lesson_07_heads") if row["step"] == 400]
    assert len(rows) == 2 * 5 * 3 * 4
    for row in rows:
        if row["arm"] == "vit":
            assert row["val_top1"] < 30 and 2.9 < row["nonlocality"] < 3.3
        else:
            assert row["val_top1"] > 99 and abs(row["gate"] - 0.731) < 0.1
            if row["layer"] == 0:
                assert row["gate"] > 0.731 and row["nonlocality"] < 1.49
            if row["layer"] == 1:
                assert 0.69 < row["gate"] < 0.74 and 1.35 < row["nonlocality"] < 1.7
            if row["layer"] == 2:
                assert row["gate"] < 0.7 and row["nonlocality"] > 1.75
