"""The report of a study: a Markdown table and a figure, both with every seed."""

import math
from collections.abc import Iterable, Sequence
from statistics import median

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spvit_mini import plots

from .records import Record
from .statistics import format_interval, format_mean, paired, steps_to
from .study import Study

Records = dict[tuple[str, int], Record]
COLUMNS = ("arm", "final accuracy of each seed (%)", "mean ± sd", "reached {level}", "steps to {level}, median")
COLUMNS += ("minus {baseline} [95 %]", "parameters", "ms per step")


def make_table(study: Study, records: Records) -> str:
    """Make the Markdown table with a row per arm, and notes on how to read it and on what is missing."""
    level = f"{study.level:g} %"
    head = [c.format(level=level, baseline=study.baseline) for c in COLUMNS if study.baseline or "baseline" not in c]
    lines = [head + list(study.tuning)]
    for arm in study.arms:
        if own := select_records(records, arm):
            lines.append([arm, *make_cells(study, arm, records), *(get_option(own[0], name) for name in study.tuning)])
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    rows.insert(1, "|" + "---|" * len(lines[0]))
    return "\n".join([study.question, "", *rows, "", *make_notes(study, records)])


def select_records(records: Records, arm: str) -> list[Record]:
    """Select the records of an arm, in the order of the seeds."""
    return [record for (label, _), record in records.items() if label == arm]


def make_cells(study: Study, arm: str, records: Records) -> list[str]:
    """Make the cells of an arm's row, without its label and tuned options."""
    own = select_records(records, arm)
    finals = [record.final for record in own]
    steps = [steps_to(record.curve, study.level) for record in own]
    reached = sum(step < math.inf for step in steps)
    middle = median(steps)
    cells = [
        " ".join("diverged" if record.diverged else f"{record.final:.1f}" for record in own),
        format_mean(finals),
        f"{reached} of {len(own)}",
        "∞ (never)" if reached == 0 else "∞" if middle == math.inf else f"{middle:g}",
    ]
    if study.baseline:
        cells.append("–" if arm == study.baseline else describe_difference(study, arm, records))
    one = next((record for record in own if not record.diverged), own[0])
    paces = [record.ms_per_step for record in own if record.ms_per_step is not None]
    cells.append("–" if one.parameters is None else f"{one.parameters:,}")
    cells.append(f"{median(paces):.3g}" if paces else "–")
    return cells


def describe_difference(study: Study, arm: str, records: Records) -> str:
    """Describe the paired difference of an arm and the baseline, over the seeds that both have."""
    seeds = [seed for seed in study.seeds if (arm, seed) in records and (study.baseline, seed) in records]
    difference = paired(*([records[label, seed].final for seed in seeds] for label in (arm, study.baseline)))
    return format_interval(difference) + (f", n = {difference.pairs}" if difference.pairs > 1 else "")


def get_option(record: Record, name: str) -> str:
    """Get an option of a record's recipe by its dotted name, as text."""
    value = record.recipe
    for part in name.split("."):
        value = value[part]
    return f"{value:g}" if isinstance(value, float) else str(value)


def make_notes(study: Study, records: Records) -> list[str]:
    """Make the lines below the table: how to read it, the devices, and what is missing or doubtful."""
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
    return lines + [f"**{doubt}**" for doubt in (*study.ties, *find_range_ends(study))]


def find_range_ends(study: Study) -> list[str]:
    """Find the arms whose best candidate is at an end of the range, where a wider range might have a better one."""
    lines = []
    for label, arm in study.arms.items():
        for name, values in study.tuning.items():
            value = arm.changes[name]
            if len(values) > 1 and value in (min(values), max(values)):
                lines.append(f"{label}: the best {name}, {value}, lies at an end of what was tried.")
    return lines


def draw_figure(study: Study, records: Records) -> Figure:
    """Draw the curve of every seed (thin) and of every arm's mean (thick), and a strip plot of the final accuracies."""
    plots.style()
    own = {arm: runs for arm in study.arms if (runs := select_records(records, arm))}
    colours = assign_colours(study)
    widths = [5.5, 0.8 + 0.6 * len(own)]  # inches
    figure, (left, right) = plt.subplots(1, 2, figsize=(sum(widths), 4), sharey=True, width_ratios=widths)
    plots.curves(left, {arm: make_curves(runs) for arm, runs in own.items()}, colours=colours)
    low, high = choose_limits(value for record in records.values() for _, value in [*record.curve, (0, record.final)])
    is_near = low <= study.level <= high
    for axes in (left, right) if is_near else ():
        axes.axhline(study.level, color="#7f7f7f", linestyle="--", linewidth=1)
    left.set(xlabel="training steps", ylabel="validation accuracy (%)", ylim=(low, high))
    left.set_title(f"every seed, and the mean of each arm; {'dashed' if is_near else 'outside'}: {study.level:g} %")
    draw_strip(right, {arm: [record.final for record in runs] for arm, runs in own.items()}, colours=colours)
    right.set_title("after the last step")
    figure.suptitle(study.question, x=0.01, ha="left", fontsize=10.5)
    return figure


def choose_limits(values: Iterable[float]) -> tuple[float, float]:
    """Choose the ends of an axis of accuracies in percent: the whole range if the values spread over half of it, else theirs."""
    values = list(values)
    low, high = min(values, default=0.0), max(values, default=100.0)
    if high - low > 50:
        return -2.0, 103.0
    margin = max(0.5, 0.1 * (high - low))
    return max(-2.0, low - margin), min(103.0, high + margin)


def assign_colours(study: Study) -> dict[str, str]:
    """Assign a colour to every arm: its own, or one that no other arm has."""
    used = {arm.colour for arm in study.arms.values()}
    free = [colour for name, colour in plots.COLOURS.items() if name not in used]
    free += [plt.get_cmap("tab20")(i) for i in range(20)] * len(study.arms)
    return {label: plots.COLOURS[arm.colour] if arm.colour else free.pop(0) for label, arm in study.arms.items()}


def make_curves(records: Sequence[Record]) -> list[tuple[list[float], list[float]]]:
    """Make the curves of an arm over the steps of the longest run; a run that diverged is at 0 from then on."""
    steps = max(([step for step, _ in record.curve] for record in records), key=len)
    return [(steps, [dict(record.curve).get(step, 0.0) for step in steps]) for record in records]


def draw_strip(axes: Axes, finals: dict[str, list[float]], *, colours: dict[str, str]) -> None:
    """Draw the values of each arm as dots, in the order of the seeds, and their mean as a bar."""
    for x, (arm, values) in enumerate(finals.items()):
        width = 0.5 / max(1, len(values) - 1)
        positions = [x + width * (i - (len(values) - 1) / 2) for i in range(len(values))]
        axes.scatter(positions, values, s=18, color=colours[arm], alpha=0.8, linewidths=0, zorder=3)
        mean = sum(values) / len(values)
        axes.plot([x - 0.38, x + 0.38], [mean, mean], color=colours[arm])
    axes.set_xticks(range(len(finals)), finals, rotation=30, ha="right")
    axes.set_xlim(-0.7, len(finals) - 0.3)
    axes.grid(False, axis="x")
