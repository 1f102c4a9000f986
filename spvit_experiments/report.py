"""What a study has shown: a table with every seed, and a figure that draws every seed."""

import math
from collections.abc import Sequence
from statistics import median

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spvit_mini import plots

from .design import Study
from .records import Record
from .statistics import mean_and_deviation, paired, steps_to

Records = dict[tuple[str, int], Record]
COLUMNS = (
    "arm",
    "final accuracy of each seed (%)",
    "mean ± sd",
    "reached {level}",
    "steps to {level}, median",
    "minus {baseline} [95 %]",
    "parameters",
    "ms per step",
)


def table(study: Study, records: Records) -> str:
    """Lay the outcomes out as Markdown: a row for each arm, and below it how to read it and what is missing."""
    level = f"{study.level:g} %"
    head = [c.format(level=level, baseline=study.baseline) for c in COLUMNS if study.baseline or "baseline" not in c]
    tuned = list(study.tuning)
    lines = [head + tuned]
    for arm in study.arms:
        own = [record for (label, _), record in records.items() if label == arm]
        if own:
            lines.append([arm, *cells(study, arm, records), *(option_of(own[0], name) for name in tuned)])
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    rows.insert(1, "|" + "---|" * len(lines[0]))
    return "\n".join([study.question, "", *rows, "", *notes(study, records)])


def cells(study: Study, arm: str, records: Records) -> list[str]:
    """Fill an arm's row, but for its name."""
    own = [record for (label, _), record in records.items() if label == arm]
    finals = [record.final for record in own]
    mean, deviation = mean_and_deviation(finals)
    steps = [steps_to(record.curve, study.level) for record in own]
    reached = sum(step < math.inf for step in steps)
    middle = median(steps)
    filled = [
        " ".join("diverged" if record.diverged else f"{record.final:.1f}" for record in own),
        f"{mean:.1f} ± {deviation:.1f}",
        f"{reached} of {len(own)}",
        "∞ (never)" if reached == 0 else "∞" if middle == math.inf else f"{middle:g}",
    ]
    if study.baseline:
        filled.append("–" if arm == study.baseline else difference(study, arm, records))
    one = next((record for record in own if not record.diverged), own[0])
    paces = [record.ms_per_step for record in own if record.ms_per_step is not None]
    filled.append("–" if one.parameters is None else f"{one.parameters:,}")
    filled.append(f"{median(paces):.3g}" if paces else "–")
    return filled


def difference(study: Study, arm: str, records: Records) -> str:
    """Compare an arm with the baseline, over the seeds that both have."""
    seeds = [seed for seed in study.seeds if (arm, seed) in records and (study.baseline, seed) in records]
    if not seeds:
        return "no pairs"
    found = paired(
        [records[arm, seed].final for seed in seeds], [records[study.baseline, seed].final for seed in seeds]
    )
    if found.pairs == 1:
        return f"{found.mean:+.1f} (one pair)"
    return f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}], n = {found.pairs}"


def option_of(record: Record, name: str) -> str:
    """Look up an option of a record's recipe by its dotted name."""
    value = record.recipe
    for part in name.split("."):
        value = value[part]
    return f"{value:g}" if isinstance(value, float) else str(value)


def notes(study: Study, records: Records) -> list[str]:
    """Say how to read the table, on what it was measured, and what is missing or doubtful."""
    lines = [
        "Accuracy on the validation part after the last step. sd: over seeds (n − 1). Steps: the first evaluation at the "
        "level or above it; a seed that never gets there counts as ∞. Differences are paired by seed; the interval is "
        "Student's, 95 %. ms per step: median over seeds, evaluations left out."
    ]
    devices = sorted({record.device for record in records.values()})
    versions = sorted({f"torch {record.versions['torch']}" for record in records.values()})
    lines.append(f"Measured on: {', '.join(devices)}; {', '.join(versions)}.")
    if len(devices) > 1:
        lines.append("**More than one device: times are not to be compared, and accuracies with care.**")
    missing = [f"{arm} seed {seed}" for arm, seed in study.runs() if (arm, seed) not in records]
    if missing:
        lines.append(f"**Not complete: {len(missing)} of {len(study.runs())} runs are missing: {', '.join(missing)}.**")
    if any(record.diverged for record in records.values()):
        lines.append("A run that diverged counts as 0 %.")
    if any(record.dirty for record in records.values()):
        lines.append("Some runs were made with files that differ from their commit.")
    return lines + [f"**{edge}**" for edge in edges(study)]


def edges(study: Study) -> list[str]:
    """Name the arms whose best candidate lies at an end of its grid: a wider one might have a better."""
    found = []
    for arm, chosen in study.arms.items():
        for name, values in study.tuning.items():
            value = chosen.changes[name]
            if len(values) > 1 and value in (min(values), max(values)):
                found.append(f"{arm}: the best {name}, {value}, lies at an end of what was tried.")
    return found


def figure(study: Study, records: Records) -> Figure:
    """Draw every seed: its curve (thin; the mean of its arm thick), and its final value in a strip that names the arms."""
    plots.style()
    arms = [arm for arm in study.arms if any(label == arm for label, _ in records)]
    colours = colours_of(study)
    widths = [5.5, 0.8 + 0.6 * len(arms)]  # inches
    picture, (left, right) = plt.subplots(1, 2, figsize=(sum(widths), 4), sharey=True, width_ratios=widths)
    own = {arm: [record for (label, _), record in records.items() if label == arm] for arm in arms}
    plots.curves(left, {arm: same_steps(own[arm]) for arm in arms}, colours=colours)
    for axes in (left, right):
        axes.axhline(study.level, color="#7f7f7f", linestyle="--", linewidth=1)
    left.set(xlabel="training steps", ylabel="validation accuracy (%)", ylim=(-2, 103))
    left.set_title(f"every seed, and the mean of each arm; dashed: {study.level:g} %")
    strip(right, {arm: [record.final for record in own[arm]] for arm in arms}, colours=colours)
    right.set_title("after the last step")
    picture.suptitle(study.question, x=0.01, ha="left", fontsize=10.5)
    return picture


def colours_of(study: Study) -> dict[str, str]:
    """Give every arm its colour: its method's own, or one that no other arm has."""
    taken = {arm.colour for arm in study.arms.values()}
    free = [colour for name, colour in plots.COLOURS.items() if name not in taken]
    free += [plt.get_cmap("tab20")(i) for i in range(20)] * len(study.arms)
    return {label: plots.COLOURS[arm.colour] if arm.colour else free.pop(0) for label, arm in study.arms.items()}


def same_steps(records: Sequence[Record]) -> list[tuple[list[float], list[float]]]:
    """Take the curves of an arm, all over the steps of the longest; where a run had diverged it is at 0."""
    steps = max(([step for step, _ in record.curve] for record in records), key=len)
    return [(steps, [dict(record.curve).get(step, 0.0) for step in steps]) for record in records]


def strip(axes: Axes, finals: dict[str, list[float]], *, colours: dict[str, str]) -> None:
    """Draw every value of an arm as a dot, side by side in the order of the seeds, and their mean as a bar."""
    for place, (arm, values) in enumerate(finals.items()):
        width = 0.5 / max(1, len(values) - 1)
        beside = [place + width * (i - (len(values) - 1) / 2) for i in range(len(values))]
        axes.scatter(beside, values, s=18, color=colours[arm], alpha=0.8, linewidths=0, zorder=3)
        mean = sum(values) / len(values)
        axes.plot([place - 0.38, place + 0.38], [mean, mean], color=colours[arm])
    axes.set_xticks(range(len(finals)), finals, rotation=30, ha="right")
    axes.set_xlim(-0.7, len(finals) - 0.3)
    axes.grid(False, axis="x")
