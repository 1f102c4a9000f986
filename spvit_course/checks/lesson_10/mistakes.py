"""Lesson 10: known mistakes, name → (hint, the options of answers.py that make it)."""

UNPAIRED = (
    "the interval is that of two groups that have nothing to do with each other. Take the difference of each seed first; "
    "then there is one list, and its own spread counts."
)
NORMAL = "the factor is that of the normal distribution. With so few pairs s itself is uncertain: t, of n − 1 degrees of freedom."
PAIRED = {
    "unpaired": (UNPAIRED, {"pairs": "not, of 2n − 2"}),
    "unpaired, n − 1": (UNPAIRED, {"pairs": "not, of n − 1"}),
    "each sorted": ("the two lists are sorted, so that the best run of a meets the best run of b. Each run belongs to its own "
        "seed: keep the order.", {"pairs": "each sorted"}),
    "over n": ("the spread is a little too small: the sum of squares is divided by n. The mean came from the same n "
        "numbers.", {"over": "n"}),
    "standard deviation": ("this is how far single differences lie from their mean. How far does the mean of n of them "
        "lie?", {"error": "s"}),
    "divided by n": ("s is divided by n. The variance of a mean is s²/n; what is its root?", {"error": "s/n"}),
    "root of n − 1": ("the spread is divided by √(n − 1). One n − 1 stands under the sum of squares already; the error of a "
        "mean of n numbers has n.", {"error": "s/√(n − 1)"}),
    "variance for deviation": ("the variance stands where its root belongs: s has the unit of the accuracies, s² has "
        "not.", {"error": "s²/√n"}),
    "variance of the mean": ("s²/n is the variance of the mean. The interval needs its root.", {"error": "s²/n"}),
    "normal": (NORMAL, {"factor": "normal"}),
    "1.96": (NORMAL, {"factor": "1.96"}),
    "degrees of freedom": ("the quantile is that of n degrees of freedom. One is used up by the mean.",
        {"factor": "t of n"}),
    "degrees of freedom of two groups": ("the quantile is that of 2n − 2 degrees of freedom, for two groups. Here there is "
        "one list, of n differences.", {"factor": "t of 2n − 2"}),
    "97.5 %": ("the quantile is that of 97.5 %. t_quantile counts both sides: its first argument is the share of the "
        "interval, not the point where the upper tail begins.", {"factor": "97.5 %"}),
    "5 %": ("the quantile is that of 5 %, the share outside. t_quantile's first argument is the share inside.",
        {"factor": "5 %"}),
    "three digits": ("the quantile is rounded, as in the table. Ask t_quantile for it.",
        {"factor": "t of n − 1, three digits"}),
    "one side": ("5 % lie outside on each side of the interval, 10 % in all: its quantile counts one side. t_quantile counts "
        "both.", {"factor": "one side"}),
    "no quantile": ("mean ± s/√n holds the truth far less often than in 95 % of all cases. What is the factor before "
        "s/√n?", {"factor": "none"}),
    "sign": ("the sign is turned: a is compared with b, a − b.", {"difference": "b − a"}),
    "size": ("the signs of the differences are lost, so losses count as gains.", {"difference": "size"}),
    "failures dropped": ("pairs with a diverged run are left out. A method that fails now and then looks better for "
        "it: such a run counts as 0 %.", {"failed": "dropped"}),
    "failures kept": ("a run that diverged makes everything NaN. It counts as 0 %.", {"failed": "kept"}),
    "difference 0": ("where one run diverged, the difference is set to 0, as if both had done equally well. The *run* "
        "counts as 0 %.", {"failed": "difference 0"}),
    "median": ("the interval of Student's t lies around the mean. For an even number, torch's median is not even the "
        "middle.", {"middle": "median"}),
    "order": ("the mean stands in the middle of the three. Return it first: mean, low, high.",
        {"order": "low, mean, high"}),
    "order, mean last": ("the mean stands last. Return it first: mean, low, high.", {"order": "low, high, mean"}),
    "high before low": ("low and high have changed places.", {"order": "mean, high, low"}),
}
STEPS_TO = {
    "last": ("it finds the last evaluation at the level. When did the run get there for the first time?",
        {"which": "last"}),
    "stays": ("it asks that the run stays at the level to its end. Asked is the first time, whatever comes after.",
        {"which": "stays"}),
    "largest": ("it finds the step of the best accuracy. Asked is when the level is reached.", {"which": "largest"}),
    "before": ("it finds the evaluation before: there the run was still below the level.", {"which": "before"}),
    "place": ("it gives the place of the evaluation in the list, counted from 0. Each row says its step.",
        {"said": "place from 0"}),
    "place from 1": ("it counts evaluations. Each row says its step.", {"said": "place from 1"}),
    "value": ("it gives the accuracy there. Asked is the step.", {"said": "value"}),
    "between": ("it draws a line between two evaluations. Nobody looked there: the answer is a step at which the run "
        "was evaluated.", {"said": "between"}),
    "its end": ("a run that never gets there is given its own last step. So it counts as slow, not as failed; infinity "
        "says what it is.", {"never": "its last step"}),
    "the end": ("a run that never gets there is given the last step of all. So it counts as slow, not as failed; "
        "infinity says what it is.", {"never": "the last step"}),
    "0": ("a run that never gets there is given 0 steps: the best of all. It counts as infinity.", {"never": "0"}),
    "nan or left out": ("a run that never gets there is left out, or NaN, and every mean, median and minimum will pass "
        "over it. It counts as infinity.", {"never": "dropped"}),
    "above": ("it asks for more than the level. A run that is exactly there has reached it.", {"reached": "above"}),
    "training curve": ("it reads the accuracy on training images. What counts is the validation part.",
        {"curve": "train_top1"}),
    "best seed": ("every seed is given the step of the fastest. Each run speaks for itself.", {"seeds": "best"}),
    "first seed": ("every seed is given the step of the first. Each run speaks for itself: do all seeds share one list, as "
        "after `dict.fromkeys(seeds, [])`?", {"seeds": "first alone"}),
    "mean curve": ("it looks where the mean of all curves gets there. Such a mean hides the runs that never do; each "
        "run speaks for itself.", {"seeds": "mean curve"}),
}
