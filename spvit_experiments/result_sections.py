"""Sections of docs/results.md on explanations, heads, other grids and binarised priors.

`make_sections` makes them from the records, `draw_figures` their figures, and `list_comparisons` their tests of the papers'
claims, with the rule of claims.py.
"""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from spvit_mini import plots

from .records import read_records
from .statistics import Difference, format_interval, format_mean, mean_and_deviation, paired

Rows = list[dict]
KINDS = ("rollout", "relevance", "contrast", "untrained_rollout", "untrained_relevance", "random")
FOLLOWED = ("rollout", "relevance", "contrast", "random")
COMMAND = "python -m spvit_experiments explanations --out data/results"
COLOURS = {"spsa": "spsa", "spsa-as-table": "rpb", "spsa-late": "added", "spsa-no-positions": "anchored", "psa": "psa"}


def make_sections() -> list[str]:
    """Make all sections, in order."""
    return [explanation_section(), head_section(), grid_section(), sparsity_section()]


# Parts of a section ---------------------------------------------------------------------------------------------------


def seed_means(rows: Rows, column: str, /, **where: object) -> list[float]:
    """Average a column within each seed, over the rows with the given values; a number per seed, in order."""
    own = [row for row in rows if all(row[key] == value for key, value in where.items())]
    seeds = sorted({row["seed"] for row in own})
    parts = [[row[column] for row in own if row["seed"] == seed] for seed in seeds]
    return [sum(part) / len(part) for part in parts]


def arms_in(rows: Rows) -> list[str]:
    """List the arms of some rows, in the order of the file."""
    return list(dict.fromkeys(row["arm"] for row in rows))


def make_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in rows)


def make_section(title: str, figure: str, alt: str, *parts: str, command: str) -> str:
    """Make a section from its parts."""
    return "\n\n".join([f"### {figure}", f"{title}", f"![{alt}](results/{figure}.png)", *parts, f"    {command}"]) + "\n"


def to_percent(values: Iterable[float]) -> list[float]:
    """Convert fractions to percent."""
    return [100 * value for value in values]


# Sections -------------------------------------------------------------------------------------------------------------


def explanation_section() -> str:
    """Make the section on explanations: hits of the relevant patches, and the areas of deletion and insertion."""
    rows = read_records("looking")
    hits = [
        [arm, format_mean(seed_means(rows, "val_top1", arm=arm))]
        + [format_mean(to_percent(seed_means(rows, f"hit_{kind}", arm=arm))) for kind in KINDS]
        for arm in arms_in(rows)
    ]
    areas = [
        [arm]
        + [format_mean(seed_means(rows, f"{part}_{kind}", arm=arm), 3) for part in ("deletion", "insertion") for kind in FOLLOWED]
        for arm in arms_in(rows)
    ]
    return make_section(
        "Are the places that count found?",
        "looking",
        "Part of lighthouse and ship among the two highest patches of each kind of map, every seed of each model.",
        "Compass-6 knows where lighthouse and ship are. In percent of the two that are among a map's two highest patches, on "
        "400 scenes that no model was trained on; mean ± sd over five seeds. *contrast* looks at the image alone, *untrained* "
        "at the model as it began.",
        make_table(["arm", "accuracy", *(kind.replace("_", " ") for kind in KINDS)], hits),
        "Areas under the curves of deletion (lower is better) and insertion (higher is better), on 64 scenes.",
        make_table(["arm", *(f"{part}, {kind}" for part in ("deletion", "insertion") for kind in FOLLOWED)], areas),
        command=COMMAND,
    )


def head_section() -> str:
    """Make the section on heads: what the foci of a layer's heads cover together, against chance."""
    rows = read_records("looking_heads")
    lines = []
    for arm in arms_in(rows):
        for layer in sorted({row["layer"] for row in rows if row["arm"] == arm}):
            where = {"arm": arm, "layer": layer}
            parts = {name: to_percent(seed_means(rows, name, **where)) for name in ("single", "largest", "union", "chance")}
            gap = paired(parts["union"], parts["chance"])
            far = format_mean(seed_means(rows, "nonlocality", **where), 2)
            cells = [arm, f"{layer:.0f}", far, *map(format_mean, parts.values())]
            lines.append([*cells, f"{format_interval(gap)}, n = {gap.pairs}"])
    return make_section(
        "Do heads' foci add up to a global field?",
        "looking_heads",
        "What the heads' foci cover together, less what chance would cover, for every layer and seed.",
        "The *focus* of a query is the fewest keys that hold half of "
        "its weight, in percent of all patches; *union* is what the foci of a layer's heads cover together, *chance* what foci "
        "of these sizes would cover if each were placed anywhere. Distances in "
        "patches; 64 scenes; mean ± sd over five seeds.",
        make_table(["arm", "layer", "distance", "one", "largest", "union", "chance", "union − chance"], lines),
        command=COMMAND,
    )


def grid_section() -> str:
    """Make the section on other grids: accuracy without training there, and over steps of fine-tuning."""
    rows, tuned = read_records("resolution"), read_records("fine_tuned")
    sizes = list(dict.fromkeys((row["rows"], row["cols"], row["reach"]) for row in rows))
    steps = sorted({row["step"] for row in tuned})

    def accuracy(arm: str, size: tuple) -> list[float]:
        return seed_means(rows, "val_top1", arm=arm, **dict(zip(("rows", "cols", "reach"), size, strict=True)))

    transfer = [[arm, *(format_mean(accuracy(arm, size)) for size in sizes)] for arm in arms_in(rows)]
    tuning = [
        [arm, *(format_mean(seed_means(tuned, "val_top1", arm=arm, step=step)) for step in steps)] for arm in arms_in(tuned)
    ]
    return make_section(
        "What is a model worth on a grid that it was not trained on?",
        "resolution",
        "Accuracy of every seed on grids it was not trained on, and on 12 × 12 over steps of fine-tuning.",
        "Accuracy in percent on 200 new scenes of each size, without any training there; ≤ is how far the ship may be. "
        "*spsa-as-table* is the same run with its prior baked into a table, which is resized; *spsa-late* is right less often "
        "at home too. Mean ± sd over five seeds.",
        make_table(["arm", *(f"{r:.0f}×{c:.0f}, ≤{reach:.0f}" for r, c, reach in sizes)], transfer),
        "After so many steps of training on 12 × 12 (1,000 scenes, batches of 50, for all a rate that falls from 0.001 to 0):",
        make_table(["arm", *(f"{step:.0f} steps" for step in steps)], tuning),
        command=COMMAND,
    )


def sparsity_section() -> str:
    """Make the section on binarised priors: accuracy over the density of the mask."""
    rows = read_records("sparse")
    densities = sorted({row["density"] for row in rows}, reverse=True)
    lines = [
        [arm, *(format_mean(seed_means(rows, "val_top1", arm=arm, density=density)) for density in densities)]
        for arm in arms_in(rows)
    ]
    return make_section(
        "How much is left of a prior that is made of zeros and ones?",
        "sparse",
        "Accuracy over the share of offsets that each head keeps, with the product and by the mask alone, every seed.",
        "SP-ViT's authors name binarised priors as future work. Here each head of a trained SP-ViT keeps a share of the offsets, "
        "as a mask, without training after: those of the largest f, those whose f is farthest from 1, or random ones (five "
        "draws). With *+product* f goes on multiplying inside the mask. Accuracy in percent on 500 scenes of Compass-6 (chance "
        "12.5 %); mean ± sd over five seeds. Time: [speed](speed.md); a mask saves none unless whole blocks are left out.",
        make_table(["kept", *(f"{100 * density:.0f} %" for density in densities)], lines),
        command="python -m spvit_experiments sparsity --out data/results",
    )


# Claims ---------------------------------------------------------------------------------------------------------------


def list_comparisons() -> list[tuple[str, str, str, str, Difference, int]]:
    """List the comparisons: (claim, source, section, arms, the difference with the claim's sign, digits)."""
    looking, heads = read_records("looking"), read_records("looking_heads")
    grids, tuned, sparse = read_records("resolution"), read_records("fine_tuned"), read_records("sparse")

    def deletion(arm: str, kind: str = "rollout") -> list[float]:
        return seed_means(looking, f"deletion_{kind}", arm=arm)

    def foci(name: str, layer: int) -> list[float]:
        return to_percent(seed_means(heads, name, arm="spsa", layer=layer))

    def larger(arm: str) -> list[float]:
        return seed_means(grids, "val_top1", arm=arm, rows=12, cols=12, reach=3)

    def after(arm: str) -> list[float]:
        return seed_means(tuned, "val_top1", arm=arm, step=max(row["step"] for row in tuned))

    def half(arm: str) -> list[float]:
        return seed_means(sparse, "val_top1", arm=arm, density=0.5)

    shows = "Maps of a model with learned priors find what its answer hangs on.", "SP-ViT, figures beside DeiT-S's"
    covers = "Heads complement each other: their foci together cover more than chance would.", "our question"
    fits = "A prior computed from offsets fits other grids, where a table is resized.", "SP-ViT, fine-tuned at 384 px"
    binary = "Binarised priors keep what matters: the largest offsets do better than random ones.", "SP-ViT, future work"
    return [
        (*shows, "looking", "deletion, random − spsa's rollout", paired(deletion("spsa", "random"), deletion("spsa")), 3),
        (*shows, "looking", "deletion, psa's rollout − spsa's", paired(deletion("psa"), deletion("spsa")), 3),
        *(
            (*covers, "looking_heads", f"spsa, layer {i}: union − chance", paired(foci("union", i), foci("chance", i)), 1)
            for i in (0, 1)
        ),
        (*fits, "resolution", "12 × 12: spsa − as a table", paired(larger("spsa"), larger("spsa-as-table")), 1),
        (*fits, "resolution", "fine-tuned: spsa − as a table", paired(after("spsa"), after("spsa-as-table")), 1),
        (*binary, "sparse", "half, mask alone: largest − random", paired(half("largest"), half("random")), 1),
    ]


# Figures --------------------------------------------------------------------------------------------------------------


def draw_figures() -> dict[str, Figure]:
    """Draw the figures of all sections, by name."""
    plots.style()
    makers = {"looking": draw_explanations, "looking_heads": draw_heads, "resolution": draw_grids, "sparse": draw_sparsity}
    return {name: make() for name, make in makers.items()}


def draw_dots(axes, x: float, values: Sequence[float], colour) -> None:
    """Draw a dot for each seed and a bar at their mean."""
    axes.plot([x + 0.03 * (i - 2) for i in range(len(values))], values, "o", ms=3, color=colour, alpha=0.8)
    axes.plot([x - 0.09, x + 0.09], 2 * [sum(values) / len(values)], color=colour)


def draw_explanations() -> Figure:
    """Draw the hit rates of every kind of map."""
    rows = read_records("looking")
    figure, axes = plt.subplots(figsize=(8, 3.6))
    for i, arm in enumerate(arms_in(rows)):
        colour = plots.COLOURS[COLOURS[arm]]
        axes.plot([], [], "o-", ms=3, color=colour, label=arm)
        for x, kind in enumerate(KINDS):
            draw_dots(axes, x + 0.2 * (i - 1.5), to_percent(seed_means(rows, f"hit_{kind}", arm=arm)), colour)
    axes.set(ylabel="lighthouse and ship found (%)", ylim=(-2, 103), title="Trained models' maps find the places that count")
    axes.set_xticks(range(len(KINDS)), [kind.replace("_", "\n") for kind in KINDS])
    axes.legend(loc="upper right")
    return figure


def draw_heads() -> Figure:
    """Draw union − chance for every layer."""
    rows = read_records("looking_heads")
    layers = [(arm, layer) for arm in arms_in(rows) for layer in sorted({r["layer"] for r in rows if r["arm"] == arm})]
    figure, axes = plt.subplots(figsize=(8, 3))
    for x, (arm, layer) in enumerate(layers):
        union, chance = (seed_means(rows, name, arm=arm, layer=layer) for name in ("union", "chance"))
        gaps = to_percent(u - c for u, c in zip(union, chance, strict=True))
        draw_dots(axes, x, gaps, plots.COLOURS[COLOURS[arm]])
    axes.axhline(0, color="#7f7f7f", linestyle="--", linewidth=1)
    axes.set(ylabel="union − chance (% of patches)", title="What heads' foci cover together, against chance")
    axes.set_xticks(range(len(layers)), [f"{arm}\nlayer {layer:.0f}" for arm, layer in layers], rotation=30, ha="right")
    return figure


def draw_grids() -> Figure:
    """Draw the accuracy on other grids, and over steps of fine-tuning."""
    rows, tuned = read_records("resolution"), read_records("fine_tuned")
    sizes = list(dict.fromkeys((row["rows"], row["cols"], row["reach"]) for row in rows))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, width_ratios=(1.5, 1))
    for i, arm in enumerate(arms_in(rows)):
        colour = plots.COLOURS[COLOURS[arm]]
        for x, (r, c, reach) in enumerate(sizes):
            draw_dots(left, x + 0.17 * (i - 2), seed_means(rows, "val_top1", arm=arm, rows=r, cols=c, reach=reach), colour)
        for seed in sorted({row["seed"] for row in tuned}):
            curve = [(row["step"], row["val_top1"]) for row in tuned if (row["arm"], row["seed"]) == (arm, seed)]
            right.plot(*zip(*curve, strict=True), color=colour, linewidth=0.7, alpha=0.5)
        steps = sorted({row["step"] for row in tuned})
        means = [mean_and_deviation(seed_means(tuned, "val_top1", arm=arm, step=step))[0] for step in steps]
        right.plot(steps, means, color=colour, linewidth=2, label=arm)
    left.set_xticks(range(len(sizes)), [f"{r:.0f}×{c:.0f}, ≤{reach:.0f}" for r, c, reach in sizes])
    left.set(ylabel="accuracy (%)", ylim=(0, 103), xlabel="grid, farthest ship", title="as trained on 6×6, ≤3")
    right.set(xlabel="steps of training on 12×12", title="fine-tuned")
    right.legend(loc="lower right")
    return figure


def draw_sparsity() -> Figure:
    """Draw the accuracy over the fraction of offsets in the mask."""
    rows = read_records("sparse")
    densities = sorted({row["density"] for row in rows})
    looks = {"largest": ("#0072B2", "-"), "farthest": ("#E69F00", "--"), "random": ("#7f7f7f", ":")}
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axes, (suffix, name) in zip(panels, (("+product", "with the product"), ("", "the mask alone")), strict=True):
        for arm, (colour, line) in looks.items():
            values = [seed_means(rows, "val_top1", arm=arm + suffix, density=density) for density in densities]
            axes.plot(densities, values, "o", ms=3, color=colour)
            axes.plot(densities, [sum(own) / len(own) for own in values], line, color=colour, label=arm)
        axes.axhline(12.5, color="#7f7f7f", linestyle="--", linewidth=1)
        axes.set(xlabel="share of the offsets kept; dashed: chance", title=name, ylim=(0, 103))
    panels[0].set_ylabel("accuracy (%)")
    panels[0].legend(loc="upper left")
    return figure


