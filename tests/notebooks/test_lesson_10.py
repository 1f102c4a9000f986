"""Lesson 10 says of its records what they hold, and of played experiments what they give."""

import math
import re
from pathlib import Path

import pytest
import torch

from spvit_course.lessons import grading, lesson_files, read
from spvit_experiments import get_study, paired, read_records
from spvit_experiments.records import read_runs
from spvit_experiments.statistics import t_quantile

RESULTS = Path(__file__).parents[2] / "data" / "results"
(LESSON,) = (path for path in lesson_files() if path.name.startswith("10"))


def text_of(*names):
    """Join the texts of cells, by id; of all Markdown cells without."""
    cells = [cell for cell in read(LESSON).cells if cell.cell_type == "markdown" and (not names or cell.id in names)]
    return " ".join(" ".join(cell.source for cell in cells).split()).replace("−", "-")


def finals(name):
    """Read every run of a complete study: final accuracies by arm."""
    found = {}
    for run in read_runs(name, RESULTS):
        found.setdefault(run.arm, []).append(run.final)
    study = get_study(name)
    assert {arm: len(values) for arm, values in found.items()} == dict.fromkeys(study.arms, len(study.seeds))
    return found


def numbers(pattern, text):
    """Read the numbers that a sentence says."""
    said = re.search(pattern, text)
    assert said, pattern
    return [float(number) for number in said.groups()]


N = r"([-+]?\d+\.?\d*)"


def test_hidden_widths_are_as_the_prose_and_the_model_answer_say():
    hidden, said, answer = finals("hidden"), text_of("saw"), text_of("answer-claim")
    gain = paired(hidden["hidden_32"], hidden["hidden_16"])
    assert gain.low < 0 < gain.high
    found = numbers(f"ahead of 16 by {N} points .*? from {N} to {N}", said)
    assert found == pytest.approx([gain.mean, gain.low, gain.high], abs=0.051)
    d = [a - b for a, b in zip(hidden["hidden_32"], hidden["hidden_16"], strict=True)]
    assert numbers(f"reported {N}, with seed 1 alone {N}", said) == pytest.approx([d[3], d[1]])
    deviation = torch.tensor(d).std().item()
    assert numbers(f"would take about {N} pairs", said) == [math.ceil(2 + 8 * (deviation / 0.4) ** 2)]
    four, eight = (paired(hidden[f"hidden_{width}"], hidden["hidden_32"]) for width in (4, 8))
    assert four.high < 0 and max(hidden["hidden_4"]) < 90
    assert numbers(rf"too few for a direction \({N} points, from {N} to {N}\)", said) == pytest.approx(
        [four.mean, four.low, four.high], abs=0.051
    )
    assert sum(value >= 90 for value in hidden["hidden_8"]) == 4 and min(hidden["hidden_8"]) == 55.4
    for width in (8, 16, 64):
        one = paired(hidden[f"hidden_{width}"], hidden["hidden_32"])
        assert one.low < 0 < one.high
        found = numbers(rf"{width} units {N}(?: points)? \({N} to {N}", answer)
        assert found == pytest.approx([one.mean, one.low, one.high], abs=0.051)
    worse = numbers(rf"by {N} points \(95 % interval: {N} to {N}\)", answer)
    assert worse == pytest.approx([-four.mean, -four.high, -four.low], abs=0.051)


def test_the_model_answer_keeps_to_its_length():
    (cell,) = (cell for cell in read(LESSON).cells if cell.id == "answer-claim")
    assert grading(cell)["points"] == 3 and grading(cell)["solution"]
    assert len(cell.source.split("**Marking**")[0].split()) <= 130  # numbers and signs counted as words


def test_the_means_of_two_humps_lie_where_no_run_is():
    positions = finals("lesson_04")
    means = [sum(values) / 5 for values in positions.values()]
    said = numbers(f"means are {N}, {N}, {N}, {N} and {N} %", text_of())
    assert said == [round(mean) for mean in means]
    table = torch.tensor(positions["table"])
    assert (table - table.mean()).abs().min() > 20 and table.std().item() == pytest.approx(28, abs=0.5)
    promised = {}
    for arm, (value,) in finals("lesson_04-tuning").items():
        promised[arm.split("@")[0]] = max(value, promised.get(arm.split("@")[0], 0))
    kept = {arm: sum(values) / 5 - promised[arm] for arm, values in positions.items()}
    assert kept["table"] < -5 and kept["shaw1d"] < -5 and kept["table_0.02"] > 5 and kept["shaw2d"] > 5
    assert max(promised["table_0.02"], promised["shaw2d"]) < 90


def test_pairing_helps_where_there_are_few_images():
    textures = finals("lesson_07")
    wins = []
    for share in ("", "-25pct", "-5pct"):
        a, b = (torch.tensor(textures[arm + share]) for arm in ("psa", "convit"))
        wins.append(((a - b).var() / (a.var() + b.var())).item())
    assert wins[0] > 1 and wins[1] < 0.5 and 0.3 < wins[2] < 0.4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("gain", "spread"), [(0.4, 0.5), (0.4, 1.0), (0.4, 2.0), (1.0, 1.0), (1.0, 2.0)])
def test_the_rule_for_the_number_of_pairs(gain, spread, seed):
    pairs = math.ceil(2 + 8 * (spread / gain) ** 2)
    draw = torch.Generator().manual_seed(seed)
    d = gain + spread * torch.randn(4000, pairs, generator=draw)
    told = d.mean(1).abs() * pairs**0.5 > t_quantile(0.95, pairs - 1) * d.std(1)
    assert 0.75 < told.double().mean().item() < 0.86


def test_binarised_priors_are_as_the_prose_says():
    rows, said = read_records("sparse"), text_of("saw")

    def kept(arm, density):
        return [row["val_top1"] for row in rows if (row["arm"], row["density"]) == (arm, density)]

    def ends(values):
        return [round(min(values)), round(max(values))]

    half, plain = kept("largest", 0.5), kept("largest", 1)
    assert numbers(f"let {N} to {N} % of the answers", said) == ends(half)
    assert numbers(f"no prior at all had {N} to {N} %", said) == ends(plain)
    found = numbers(f"three quarters of the offsets kept {N} to {N} %, half of them {N} to {N} %", said)
    assert found == ends(kept("largest+product", 0.75)) + ends(kept("largest+product", 0.5))
    lead = paired(kept("largest+product", 0.75), kept("farthest+product", 0.75))
    assert numbers(rf"is {N} points, from {N} to {N}", said) == pytest.approx([lead.mean, lead.low, lead.high], abs=0.051)
    assert max(kept("random", 0.5)) < min(half)


def test_maps_ways_and_starts_are_as_the_prose_says():
    said = text_of("saw")
    compass, textures = finals("variants_compass6"), finals("variants_textures6")
    solved = {arm for arm, values in compass.items() if min(values) >= 90}
    smooth = {"psa", "anchored", "mlp_added", "mlp_added_log", "log_cpb", "linear", "spsa_log"}
    assert solved == smooth and len(compass) == 19 and "Seven of nineteen arms" in said
    assert {arm for arm, values in textures.items() if min(values) >= 90} == {"convit", "anchored", "shaw2d"}
    for found in (compass, textures):
        assert all(paired(values, found["psa"]).low <= 0 for arm, values in found.items() if arm != "psa")

    apart = [paired(found["spsa"], found[other]) for other in ("linear", "mlp_added") for found in (compass, textures)]
    patterns = [
        rf"not told apart from it \({N} points, from {N} to {N}\)",
        rf"On Textures-6 it is \({N}, from {N} to {N}\)",
        rf"not told apart on Compass-6 \({N}, from {N} to {N}\)",
        rf"the product ahead \({N}, from {N} to {N}\)",
    ]
    for pattern, one, told in zip(patterns, apart, (False, True, False, True), strict=True):
        assert numbers(pattern, said) == pytest.approx([one.mean, one.low, one.high], abs=0.051)
        assert told == (one.low > 0 or one.high < 0)
    lead = paired(textures["anchored"], textures["psa"])
    assert numbers(rf"`anchored` - `psa` is {N}, from {N} to {N}", said) == pytest.approx(
        [lead.mean, lead.low, lead.high], abs=0.051
    )


def test_the_promise_of_psa_is_as_the_prose_says():
    tuning, said = finals("variants_textures6-tuning"), text_of("saw")
    promised = {rate: tuning[f"psa@optim.lr={rate}"][0] for rate in ("0.004", "0.008", "0.016")}
    assert max(promised, key=promised.get) == "0.016"
    assert numbers(f"psa got {N} % .*? and {N} % with 8", said) == [promised["0.016"], promised["0.008"]]
    kept = sorted(finals("variants_textures6")["psa"])
    assert numbers(f"one stayed at {N} %", said) == [kept[0]] and kept[1] > 90
    before = finals("lesson_07")["psa"]
    assert numbers(f"five of five, {N} to {N} %", said) == [min(before), max(before)]


def test_table_multiplied_and_the_ends_of_the_grid_are_as_the_prose_says():
    said, best, able = text_of("saw"), {}, 0
    for data in ("compass6", "textures6"):
        tried = {}
        for label, (value,) in finals(f"variants_{data}-tuning").items():
            arm, rate = label.split("@optim.lr=")
            tried.setdefault(arm, {})[float(rate)] = value
        best[data] = max(tried["table_multiplied"].values())
        if data == "compass6":
            able = [rates for rates in tried.values() if max(rates.values()) >= 90]
            tied = [list(rates.values()).count(max(rates.values())) > 1 for rates in able]
            ends = sum(max(rates, key=rates.get) != 8e-3 for rates, tie in zip(able, tied, strict=True) if not tie)
            assert (len(able), ends, sum(tied)) == (12, 5, 5) and "twelve arms" in said
            assert "five were strictly best at an end" in said and "five had ties" in said
    found = numbers(f"`table_multiplied` promised {N} % on Compass-6 and {N} % on Textures-6", said)
    assert found == pytest.approx([best["compass6"], best["textures6"]], abs=0.051)
    kept = [sum(value >= 90 for value in finals(f"variants_{data}")["table_multiplied"]) for data in best]
    assert kept == [1, 0]


def test_the_parts_of_sp_vit_are_as_the_prose_says():
    parts, said = finals("parts"), text_of("saw")
    names = {frozenset(): "nothing", frozenset({"spsa", "peg", "late"}): "all"}
    names |= {frozenset(arm.split("+")): arm for arm in parts if arm != "nothing" and arm != "all" and "-" not in arm}
    effects = {}
    for part in ("spsa", "peg", "late"):
        gains = [
            torch.tensor(parts[names[on | {part}]]) - torch.tensor(parts[name])
            for on, name in names.items()
            if part not in on
        ]
        assert len(gains) == 4
        effects[part] = torch.stack(gains).mean(0).tolist()
    pattern = rf"SP-SA {N} points \(from {N} to {N}\), PEG {N} \(from {N} to {N}\), the late class token {N} \(from {N} to {N}\)"
    found = [paired(values, [0] * 5) for values in effects.values()]
    expected = [number for one in found for number in (one.mean, one.low, one.high)]
    assert numbers(pattern, said) == pytest.approx(expected, abs=0.051)
    assert found[0].low > 0 and found[1].low > 0 and found[2].low < 0 < found[2].high
    apart = paired(effects["spsa"], effects["peg"])
    assert apart.low < 0 < apart.high
    assert numbers(f"every run ended at {N} %", said) == [min(parts["spsa+peg"] + parts["all"])]
    peg = parts["peg-positions"]
    assert numbers(rf"no absolute positions at all \({N} to {N} %\)", said) == [min(peg), max(peg)]


def test_sharing_images_and_rings_are_as_the_prose_says():
    said = text_of("saw")
    for pattern, study, one, other, told in (
        (rf"one for the network \({N} points, from {N} to {N}\)", "sharing", "head", "network", True),
        (rf"above one for each block \({N}, from {N} to {N}\)", "sharing", "head", "block", False),
        (rf"behind\* one for each block \({N}, from {N} to {N}\)", "sharing", "network", "block", False),
        (rf"told above `spsa` \({N}, from {N} to {N}\)", "low_data", "psa_mini-25pct", "spvit_mini-25pct", True),
        (rf"near chance, still \({N}, from {N} to {N}\)", "low_data", "psa_mini-10pct", "spvit_mini-10pct", True),
        (rf"psa - spsa is {N} \(from {N} to {N}\)", "variants_rings6", "psa", "spsa", True),
    ):
        values = finals(study)
        gain = paired(values[one], values[other])
        assert numbers(pattern, said) == pytest.approx([gain.mean, gain.low, gain.high], abs=0.051), pattern
        assert (gain.low > 0) is told
    data = finals("low_data")
    for share in ("25pct", "10pct"):
        gain = paired(data[f"anchored_mini-{share}"], data[f"psa_mini-{share}"])
        assert gain.low < 0 < gain.high
    found = finals("variants_rings6")
    assert min(found["psa"] + found["anchored"]) > 85
    assert sum(value > 60 for value in found["convit"]) == 3
    assert max(value for arm in ("none", "vit", "rpb", "mlp_added", "spsa") for value in found[arm]) < 40


def test_photographs_are_as_the_prose_says():
    said, arms, rates = text_of("saw"), finals("variants_cifar10"), finals("rates_cifar10")

    def gap(one, other):
        return paired(one, other)

    def agrees(pattern, found):
        assert numbers(pattern, said) == pytest.approx([found.mean, found.low, found.high], abs=0.051)

    agrees(rf"plain `vit` is told below psa \({N} points, from {N} to {N}\)", gap(arms["vit"], arms["psa"]))
    agrees(rf"`anchored` \({N}, from {N} to {N}\) and", gap(arms["anchored"], arms["psa"]))
    agrees(rf"`mlp_added` \({N}, from {N} to {N}\)", gap(arms["mlp_added"], arms["psa"]))
    agrees(rf"`anchored` is not told apart \({N}, from {N} to {N}\)", gap(arms["anchored"], rates["psa-3"]))
    agrees(rf"told \*below\* \({N}, from {N} to {N}\)", gap(arms["spsa"], rates["psa-3"]))
    worse = gap(rates["psa-6"], rates["psa-3"])
    found = numbers(rf"{N} points worse \(from {N} to {N}\)", said)
    assert found == pytest.approx([-worse.mean, worse.low, worse.high], abs=0.051)
    assert rates["psa-6"] == arms["psa"]  # the rate that the tuning took
    for other in ("psa-3", "psa-6"):
        assert gap(arms["vit"], rates[other]).high < -1.7 and gap(arms["vit"], rates[other]).mean < -2
    spsa, added = gap(arms["spsa"], arms["psa"]), gap(arms["mlp_added"], rates["psa-3"])
    assert spsa.low < 0 < spsa.high and added.low < 0 < added.high
    held = finals("variants_cifar10-tuning")
    low, high = (sum(held[f"psa@optim.lr=0.00{rate}"]) / 3 for rate in (3, 6))
    assert high - low == pytest.approx(0.02, abs=0.005)
    flowers = finals("variants_flowers17")
    gaps = {arm: gap(values, flowers["psa"]) for arm, values in flowers.items() if arm != "psa"}
    assert all(found.low < 0 < found.high for found in gaps.values()) and min(gaps, key=lambda arm: gaps[arm].mean) == "convit"
    d = torch.tensor(flowers["spsa"]) - torch.tensor(flowers["psa"])
    assert numbers(f"differences scatter by {N} points", said) == pytest.approx([d.std().item()], abs=0.05)
    assert math.ceil(2 + 8 * (d.std().item() / 0.6) ** 2) == pytest.approx(400, abs=20)


def test_steps_to_the_level_are_as_the_prose_says():
    runs = {name: read_runs(f"convergence_{name}", RESULTS) for name in ("compass6", "textures6")}

    def steps(name, arm):
        curves = [[(row["step"], row["val_top1"]) for row in run.rows] for run in runs[name] if run.arm == arm]
        return sorted(next((step for step, value in curve if value >= 90), math.inf) for curve in curves)

    said = text_of("saw")
    assert numbers(f"of Compass-6 after a median of {N} steps, psa and `spsa` after {N}, one seed of `spsa` after {N}", said) == [
        steps("compass6", "cnn")[2], steps("compass6", "psa")[2], max(steps("compass6", "spsa")),
    ]  # fmt: skip
    assert steps("compass6", "spsa")[2] == steps("compass6", "psa")[2]
    assert numbers(f"first look, after {N} steps, psa and `convit` after {N}", said) == [
        steps("textures6", "cnn")[2], steps("textures6", "psa")[2],
    ]  # fmt: skip
    assert steps("textures6", "convit")[2] == steps("textures6", "psa")[2] and max(steps("textures6", "psa")) < math.inf
    assert all(min(steps(name, "vit")) == math.inf for name in runs)
    assert {run.recipe["optim"]["lr"] for run in runs["textures6"] if run.arm == "psa"} == {8e-3}


def test_promises_that_were_not_kept_are_counted_over_all_arms():
    for name, arms in (("compass6", 4), ("textures6", 5)):
        promised = {}
        for candidate, (value,) in finals(f"variants_{name}-tuning").items():
            promised[candidate.split("@")[0]] = max(value, promised.get(candidate.split("@")[0], 0))
        short = [arm for arm, values in finals(f"variants_{name}").items() if promised[arm] - min(values) > 20]
        assert len(short) == arms
