"""What the records say that have no arms to be compared step by step: explanations, heads, other grids, binarised priors.

`sections` makes the parts of docs/results.md from the records, `draw` their figures, and `comparisons` what they say of the
papers' claims: as in claims.py, by one rule for all.
"""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from spvit_mini import plots

from .records import read_records
from .statistics import Difference, mean_and_deviation, paired

Rows = list[dict]
KINDS = ("rollout", "relevance", "contrast", "untrained_rollout", "untrained_relevance", "random")
FOLLOWED = ("rollout", "relevance", "contrast", "random")
LOOKING = "python -m spvit_experiments explanations"
COLOURS = {"spsa": "spsa", "spsa-as-table": "rpb", "spsa-late": "added", "spsa-no-positions": "anchored", "psa": "psa"}


def sections() -> list[str]:
    """Make all sections, in their order."""
    return [explanations(), complementarity(), grids(), sparse_priors()]


# Parts of a section ---------------------------------------------------------------------------------------------------


def by_seed(rows: Rows, column: str, /, **where: object) -> list[float]:
    """Take a column of the rows that are as asked, averaged within each seed: a number per seed, in their order."""
    own = [row for row in rows if all(row[key] == value for key, value in where.items())]
    seeds = sorted({row["seed"] for row in own})
    parts = [[row[column] for row in own if row["seed"] == seed] for seed in seeds]
    return [sum(part) / len(part) for part in parts]


def arms_of(rows: Rows) -> list[str]:
    """Name the arms in the order of the file."""
    return list(dict.fromkeys(row["arm"] for row in rows))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Write the mean and the standard deviation over seeds."""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def interval(found: Difference, digits: int = 1) -> str:
    """Write a mean difference with its interval and the number of pairs."""
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}], n = {found.pairs}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in rows)


def section(title: str, figure: str, alt: str, *parts: str, command: str) -> str:
    """Put a section together."""
    return "\n\n".join([f"### {figure}", f"{title}", f"![{alt}](results/{figure}.png)", *parts, f"    {command}"]) + "\n"


def percent(values: Sequence[float]) -> list[float]:
    """Turn parts of 1 into percent."""
    return [100 * value for value in values]


# Sections -------------------------------------------------------------------------------------------------------------


def explanations() -> str:
    """Are the patches that count found by maps of what a model looks at, and does the answer hang on them?"""
    rows = read_records("looking")
    hits = [
        [arm, spread(by_seed(rows, "val_top1", arm=arm))]
        + [spread(percent(by_seed(rows, f"hit_{kind}", arm=arm))) for kind in KINDS]
        for arm in arms_of(rows)
    ]
    areas = [
        [arm]
        + [spread(by_seed(rows, f"{part}_{kind}", arm=arm), 3) for part in ("deletion", "insertion") for kind in FOLLOWED]
        for arm in arms_of(rows)
    ]
    return section(
        "Are the places that count found?",
        "looking",
        "Part of lighthouse and ship among the two highest patches of each kind of map, every seed of each model.",
        "Compass-6 knows where lighthouse and ship are. In percent of the two that are among a map's two highest patches, on "
        "400 scenes that no model was trained on; mean ± sd over five seeds. *contrast* looks at the image alone, *untrained* "
        "at the model as it began.",
        table(["arm", "accuracy", *(kind.replace("_", " ") for kind in KINDS)], hits),
        "Areas under the curves of deletion (lower is better) and insertion (higher is better), on 64 scenes.",
        table(["arm", *(f"{part}, {kind}" for part in ("deletion", "insertion") for kind in FOLLOWED)], areas),
        command=LOOKING,
    )


def complementarity() -> str:
    """Do the foci of a layer's heads add up, beyond what chance would cover?"""
    rows = read_records("looking_heads")
    lines = []
    for arm in arms_of(rows):
        for layer in sorted({row["layer"] for row in rows if row["arm"] == arm}):
            where = {"arm": arm, "layer": layer}
            parts = {name: percent(by_seed(rows, name, **where)) for name in ("single", "largest", "union", "chance")}
            gap = paired(parts["union"], parts["chance"])
            far = spread(by_seed(rows, "nonlocality", **where), 2)
            lines.append([arm, f"{layer:.0f}", far, *(spread(values) for values in parts.values()), interval(gap)])
    return section(
        "Do heads' foci add up to a global field?",
        "looking_heads",
        "What the heads' foci cover together, less what chance would cover, for every layer and seed.",
        "The *focus* of a query is the fewest keys that hold half of "
        "its weight, in percent of all patches; *union* is what the foci of a layer's heads cover together, *chance* what foci "
        "of these sizes would cover if each were placed anywhere. Distances in "
        "patches; 64 scenes; mean ± sd over five seeds.",
        table(["arm", "layer", "distance", "one", "largest", "union", "chance", "union − chance"], lines),
        command=LOOKING,
    )


def grids() -> str:
    """What is an SP-ViT worth on a grid that it was not trained on, as it stands and after some steps there?"""
    rows, tuned = read_records("resolution"), read_records("fine_tuned")
    sizes = list(dict.fromkeys((row["rows"], row["cols"], row["reach"]) for row in rows))
    steps = sorted({row["step"] for row in tuned})

    def there(arm: str, size: tuple) -> list[float]:
        return by_seed(rows, "val_top1", arm=arm, **dict(zip(("rows", "cols", "reach"), size, strict=True)))

    moved = [[arm, *(spread(there(arm, size)) for size in sizes)] for arm in arms_of(rows)]
    later = [[arm, *(spread(by_seed(tuned, "val_top1", arm=arm, step=step)) for step in steps)] for arm in arms_of(tuned)]
    return section(
        "What is a model worth on a grid that it was not trained on?",
        "resolution",
        "Accuracy of every seed on grids it was not trained on, and on 12 × 12 over steps of fine-tuning.",
        "Accuracy in percent on 200 new scenes of each size, without any training there; ≤ is how far the ship may be. "
        "*spsa-as-table* is the same run with its prior baked into a table, which is resized; *spsa-late* is right less often "
        "at home too. Mean ± sd over five seeds.",
        table(["arm", *(f"{r:.0f}×{c:.0f}, ≤{reach:.0f}" for r, c, reach in sizes)], moved),
        "After so many steps of training on 12 × 12 (1,000 scenes, batches of 50, for all a rate that falls from 0.001 to 0):",
        table(["arm", *(f"{step:.0f} steps" for step in steps)], later),
        command=LOOKING,
    )


def sparse_priors() -> str:
    """How much of a learned prior is left as a mask of a few offsets?"""
    rows = read_records("sparse")
    densities = sorted({row["density"] for row in rows}, reverse=True)
    lines = [
        [arm, *(spread(by_seed(rows, "val_top1", arm=arm, density=density)) for density in densities)] for arm in arms_of(rows)
    ]
    return section(
        "How much is left of a prior that is made of zeros and ones?",
        "sparse",
        "Accuracy over the share of offsets that each head keeps, with the product and by the mask alone, every seed.",
        "SP-ViT's authors name binarised priors as future work. Here each head of a trained SP-ViT keeps a share of the offsets, "
        "as a mask, without training after: those of the largest f, those whose f is farthest from 1, or random ones (five "
        "draws). With *+product* f goes on multiplying inside the mask. Accuracy in percent on 500 scenes of Compass-6 (chance "
        "12.5 %); mean ± sd over five seeds. Time: [speed](speed.md); a mask saves none unless whole blocks are left out.",
        table(["kept", *(f"{100 * density:.0f} %" for density in densities)], lines),
        command="python -m spvit_experiments sparsity",
    )


# Claims ---------------------------------------------------------------------------------------------------------------


def comparisons() -> list[tuple[str, str, str, str, Difference, int]]:
    """Compare what claims speak of: (claim, source, section, arms, the difference by the claim's sign, digits)."""
    looking, heads = read_records("looking"), read_records("looking_heads")
    grids, tuned, sparse = read_records("resolution"), read_records("fine_tuned"), read_records("sparse")

    def deletion(arm: str, kind: str = "rollout") -> list[float]:
        return by_seed(looking, f"deletion_{kind}", arm=arm)

    def foci(name: str, layer: int) -> list[float]:
        return percent(by_seed(heads, name, arm="spsa", layer=layer))

    def larger(arm: str) -> list[float]:
        return by_seed(grids, "val_top1", arm=arm, rows=12, cols=12, reach=3)

    def after(arm: str) -> list[float]:
        return by_seed(tuned, "val_top1", arm=arm, step=max(row["step"] for row in tuned))

    def kept(arm: str) -> list[float]:
        return by_seed(sparse, "val_top1", arm=arm, density=0.5)

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
        (*binary, "sparse", "half, mask alone: largest − random", paired(kept("largest"), kept("random")), 1),
    ]


# Figures --------------------------------------------------------------------------------------------------------------


def draw() -> dict[str, Figure]:
    """Draw the figure of each section, by its name."""
    plots.style()
    makers: dict[str, Callable[[], Figure]] = {
        "looking": draw_explanations,
        "looking_heads": draw_complementarity,
        "resolution": draw_grids,
        "sparse": draw_sparse,
    }
    return {name: make() for name, make in makers.items()}


def dots(axes, place: float, values: Sequence[float], colour) -> None:
    """Draw a dot for each seed and a bar at their mean."""
    axes.plot([place + 0.03 * (i - 2) for i in range(len(values))], values, "o", ms=3, color=colour, alpha=0.8)
    axes.plot([place - 0.09, place + 0.09], 2 * [sum(values) / len(values)], color=colour)


def draw_explanations() -> Figure:
    """Draw the hits of every kind of map."""
    rows = read_records("looking")
    figure, axes = plt.subplots(figsize=(8, 3.6))
    for i, arm in enumerate(arms_of(rows)):
        colour = plots.COLOURS[COLOURS[arm]]
        axes.plot([], [], "o-", ms=3, color=colour, label=arm)
        for place, kind in enumerate(KINDS):
            dots(axes, place + 0.2 * (i - 1.5), percent(by_seed(rows, f"hit_{kind}", arm=arm)), colour)
    axes.set(ylabel="lighthouse and ship found (%)", ylim=(-2, 103), title="Trained models' maps find the places that count")
    axes.set_xticks(range(len(KINDS)), [kind.replace("_", "\n") for kind in KINDS])
    axes.legend(loc="upper right")
    return figure


def draw_complementarity() -> Figure:
    """Draw union − chance for every layer."""
    rows = read_records("looking_heads")
    places = [(arm, layer) for arm in arms_of(rows) for layer in sorted({r["layer"] for r in rows if r["arm"] == arm})]
    figure, axes = plt.subplots(figsize=(8, 3))
    for place, (arm, layer) in enumerate(places):
        union, chance = (by_seed(rows, name, arm=arm, layer=layer) for name in ("union", "chance"))
        gaps = percent(u - c for u, c in zip(union, chance, strict=True))
        dots(axes, place, gaps, plots.COLOURS[COLOURS[arm]])
    axes.axhline(0, color="#7f7f7f", linestyle="--", linewidth=1)
    axes.set(ylabel="union − chance (% of patches)", title="What heads' foci cover together, against chance")
    axes.set_xticks(range(len(places)), [f"{arm}\nlayer {layer:.0f}" for arm, layer in places], rotation=30, ha="right")
    return figure


def draw_grids() -> Figure:
    """Draw the accuracy on other grids, and over the steps of fine-tuning."""
    rows, tuned = read_records("resolution"), read_records("fine_tuned")
    sizes = list(dict.fromkeys((row["rows"], row["cols"], row["reach"]) for row in rows))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, width_ratios=(1.5, 1))
    for i, arm in enumerate(arms_of(rows)):
        colour = plots.COLOURS[COLOURS[arm]]
        for place, (r, c, reach) in enumerate(sizes):
            dots(left, place + 0.17 * (i - 2), by_seed(rows, "val_top1", arm=arm, rows=r, cols=c, reach=reach), colour)
        for seed in sorted({row["seed"] for row in tuned}):
            curve = [(row["step"], row["val_top1"]) for row in tuned if (row["arm"], row["seed"]) == (arm, seed)]
            right.plot(*zip(*curve, strict=True), color=colour, linewidth=0.7, alpha=0.5)
        steps = sorted({row["step"] for row in tuned})
        means = [mean_and_deviation(by_seed(tuned, "val_top1", arm=arm, step=step))[0] for step in steps]
        right.plot(steps, means, color=colour, linewidth=2, label=arm)
    left.set_xticks(range(len(sizes)), [f"{r:.0f}×{c:.0f}, ≤{reach:.0f}" for r, c, reach in sizes])
    left.set(ylabel="accuracy (%)", ylim=(0, 103), xlabel="grid, farthest ship", title="as trained on 6×6, ≤3")
    right.set(xlabel="steps of training on 12×12", title="fine-tuned")
    right.legend(loc="lower right")
    return figure


def draw_sparse() -> Figure:
    """Draw the accuracy over the share of offsets kept."""
    rows = read_records("sparse")
    densities = sorted({row["density"] for row in rows})
    looks = {"largest": ("#0072B2", "-"), "farthest": ("#E69F00", "--"), "random": ("#7f7f7f", ":")}
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axes, (behind, name) in zip(panels, (("+product", "with the product"), ("", "the mask alone")), strict=True):
        for arm, (colour, line) in looks.items():
            values = [by_seed(rows, "val_top1", arm=arm + behind, density=density) for density in densities]
            axes.plot(densities, values, "o", ms=3, color=colour)
            axes.plot(densities, [sum(own) / len(own) for own in values], line, color=colour, label=arm)
        axes.axhline(12.5, color="#7f7f7f", linestyle="--", linewidth=1)
        axes.set(xlabel="share of the offsets kept; dashed: chance", title=name, ylim=(0, 103))
    panels[0].set_ylabel("accuracy (%)")
    panels[0].legend(loc="upper left")
    return figure


