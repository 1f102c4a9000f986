"""Lesson 12: known mistakes, name → (hint, the options of answers.py that make it)."""

OFF = "The line has `start` one step *before* the first, and the peak at step `warmup`: so many equal rises as there are gaps."
FLOOR = "The cosine falls from `peak` to `final`, and its half wave is scaled to what lies between them."
REST = "The cosine has the steps between the warm-up and the cool-down, and begins with the peak."
LR_AT = {
    "start at the first step": (f"the warm-up is off by one: the first step gets `start` itself. {OFF}",
        {"rise": "from the first step"}),
    "peak a step early": (f"the warm-up is off by one: its last step has the peak already. {OFF}",
        {"rise": "up to the step before"}),
    "rise a step late": (f"the warm-up is a step late throughout. {OFF}", {"rise": "late"}),
    "both ends": (f"the warm-up has one rise too few: its first step gets `start` itself, its last one the peak. {OFF}",
        {"rise": "from end to end"}),
    "no warm-up": ("the first steps get the peak at once: where is the rise?", {"rise": "at once"}),
    "warm-up from 0": ("the warm-up rises from 0. It rises from `start`, which may be above.", {"begins": "0"}),
    "warm-up from final": ("the warm-up rises from `final`. That is where the cosine ends; the rise begins with "
        "`start`.", {"begins": "final"}),
    "no floor": (f"it falls to 0. {FLOOR}", {"floor": "at 0"}),
    "floor added": (f"`final` is added to a fall from peak to 0, so the peak is exceeded. {FLOOR}", {"floor": "added"}),
    "floor cut": (f"it falls towards 0 and is cut off at `final`. {FLOOR}", {"floor": "cut"}),
    "over the total": (f"the cosine counts from step 0, so the rate jumps down where the warm-up ends. {REST}",
        {"over": "the total"}),
    "over the total, begun late": ("the cosine begins where it should, but takes as long as if there had been no "
        f"warm-up. {REST}", {"over": "the total, begun late"}),
    "over the rest, from 0": ("the cosine has the right length, but its angle is counted from step 0, not from where "
        f"it begins. {REST}", {"over": "the rest, from 0"}),
    "from 0, and up again": ("the cosine's angle is counted from step 0, not from where it begins, so it passes its "
        f"lowest point. {REST}", {"over": "the rest, from 0", "past": "goes on", "asked": "the end first"}),
    "end before the warm-up": ("where the warm-up is as long as the run, step `warmup` gets `final`. The exercise's "
        "last point wants the peak there: ask for the warm-up before you ask for the end.", {"asked": "the end first"}),
    "end a step early": ("`final` comes one step early. It is reached at step total − cooldown, which without a "
        "cool-down is one past the last.", {"over": "a step less"}),
    "begun a step early": (f"the cosine is a step ahead: step `warmup` is below the peak already. {REST}",
        {"over": "begun a step early"}),
    "cool-down ignored": ("the cool-down is not looked at: the last `cooldown` steps of the total keep to `final`.",
        {"cool": "ignored"}),
    "cool-down added": ("the cool-down makes the run longer. It is the last part of `total`, not something after it.",
        {"cool": "added"}),
    "rises again": ("past its end the cosine rises again. Whoever asks for a later step gets `final`.",
        {"past": "goes on"}),
    "begins anew": ("past its end the cosine begins anew, with a restart. Whoever asks for a later step gets `final`.",
        {"past": "begins anew"}),
    "division by 0": ("where the warm-up is as long as the run, the cosine has no step, and it divides by 0. Let it "
        "take one at least.", {"room": "none"}),
    "whole cosine": ("the cosine comes back up to the peak: that is a whole wave. Half of one falls.",
        {"curve": "a whole cosine"}),
    "quarter cosine": ("this is a quarter of a wave, steep at its end. Half a wave, from 1 to −1, is level at both "
        "ends.", {"curve": "a quarter"}),
    "no π": ("the cosine stops on the way: at the end its angle is 1, not half a turn.", {"curve": "without π"}),
    "no ½": ("the first step after the warm-up has twice the height: 1 + cos goes from 2 to 0.",
        {"curve": "without ½"}),
    "upside down": ("the wave is upside down: it rises from `final` to the peak.", {"curve": "upside down"}),
    "straight down": ("the rate falls in a straight line. Asked for is half a cosine.", {"curve": "a line"}),
}

ALIAS = (
    "the average is the model's own tensor, not a copy: when the optimiser moves the weights in place, it moves along. Copy the "
    "numbers."
)
WARM = "d = min(decay, (1 + n) / (10 + n)), with n the updates made *before* this one."
EMA = {
    "decay swapped": ("d and 1 − d have changed places: d is the share that the *average* keeps, and near 1 in a long "
        "run.", {"share": "swapped"}),
    "weights in full": ("the new weights count in full, so the shares sum to more than 1.",
        {"share": "weights in full"}),
    "average in full": ("the old average counts in full, so the shares sum to more than 1, and it grows and grows.",
        {"share": "average in full"}),
    "no warm-up": ("decay itself is used from the start: for long the average consists of the first weights. Let it "
        "forget faster at first, as the text says.", {"decays": "at once"}),
    "max for min": (f"the larger of the two is taken, which forgets more slowly, not faster. {WARM}",
        {"decays": "the larger"}),
    "warm-up alone": (f"decay has no say: the warm-up must end where it reaches decay. {WARM}",
        {"decays": "warm-up alone"}),
    "product": (f"decay and the warm-up are multiplied. {WARM}", {"decays": "product"}),
    "plain mean": (f"all weights so far count alike: a plain mean never forgets its beginnings. {WARM}",
        {"decays": "plain mean"}),
    "n a step ahead": (f"n counts this update too. {WARM}", {"decays": "a step ahead"}),
    "n a step behind": (f"n is one too small. {WARM}", {"decays": "a step behind"}),
    "always copied": ("the average is always what the weights are now. Is `updates` counted, and is anything averaged "
        "after the first update?", {"decays": "none"}),
    "not put back": ("the average stays as it began. Is the new value put back into self.average, or only into a name "
        "of the loop?", {"stored": "lost"}),
    "no copy at first": ("the first update mixes with what the weights were before training. It copies: n is 0, and "
        "there is no average yet.", {"first": "averaged in"}),
    "buffers skipped": ("only parameters move; the running mean and the count of batches stay as they began. "
        "state_dict() holds buffers too.", {"means": "left out", "counts": "left out"}),
    "means skipped": ("the running mean stays as it began: it is a buffer, and averaged like a weight.",
        {"means": "left out"}),
    "counts skipped": ("the count of batches stays as it began: whole numbers are not averaged, but copied at each "
        "update.", {"counts": "left out"}),
    "means copied": ("the running mean is copied. It isn't a whole number, so it is averaged like a weight.",
        {"means": "copied"}),
    "counts averaged": ("the count of batches is averaged. Whole numbers are copied.", {"counts": "averaged"}),
    "counts averaged and cut": ("the count of batches is averaged, and cut to a whole number again. Whole numbers are "
        "copied.", {"counts": "cut"}),
    "counts in place": ("whole numbers can't be multiplied by a fraction in place. They aren't averaged: copy them.",
        {"counts": "in place"}),
    "half precision": ("with weights in bfloat16 the average is kept in bfloat16: a share of 0.0001 would vanish in "
        "its rounding. Keep self.average in the type it has.", {"precision": "of the weights"}),
    "half precision product": ("with weights in bfloat16, (1 − d) · w is rounded to bfloat16 before it is added. Bring "
        "w to the average's type first.", {"precision": "product of the weights"}),
}

ROUNDED = (
    "all but right: float32 rounds, after seven digits. Count images in whole numbers, and divide them as Python's own, which "
    "keep 16 digits."
)
EXACT = "Add up counts over everything, and divide once."
EXACT_ACCURACY = {
    "mean over batches": (f"accuracies of batches are averaged, so images of a short batch count more. {EXACT}",
        {"mean": "of batches"}),
    "mean over processes": ("accuracies of processes are averaged, though they have not seen equally many images. "
        f"{EXACT}", {"mean": "of processes"}),
    "mean over batches, padded": ("accuracies of batches are averaged, and what stands in for an image counts too. "
        f"{EXACT}", {"mean": "of batches", "padding": "counted"}),
    "padding counted": ("what stands in for an image, label −1, is counted as an image that is wrong. It is none: it "
        "counts neither above nor below the line.", {"padding": "counted"}),
    "padding right": ("a label of −1 is counted as right. It is no image: leave it out.", {"padding": "right"}),
    "padding as class 0": ("a label of −1 is taken for class 0. It is no image: leave it out.", {"padding": "class 0"}),
    "padding as the last class": ("a label of −1 is taken for the last class, as an index of −1 would be. It is no "
        "image: leave it out.", {"padding": "a class"}),
    "first process": ("only the first process is counted. Each has seen its own part.", {"processes": "the first"}),
    "last process": ("only the last process is counted. Was something overwritten in the loop?",
        {"processes": "the last"}),
    "right reduced twice": ("what is right is counted once for each process: was a sum over all of them added up again?",
        {"reduced": "right twice"}),
    "images reduced twice": ("the images are counted once for each process: was a sum over all of them added up again?",
        {"reduced": "images twice"}),
    "integer division": ("the percentage is cut to a whole number: // throws the rest away.",
        {"division": "of integers"}),
    "integer division first": ("the share is cut to a whole number before it becomes a percentage: // throws the rest "
        "away.", {"division": "of integers, first"}),
    "last batch dropped": ("the last batch of each process is missing.", {"batches": "last dropped"}),
    "short batches dropped": ("batches shorter than the others are missing. Their images count like all.",
        {"batches": "short ones dropped"}),
    "last batch alone": ("only the last batch of each process is counted. Was something overwritten in the loop?",
        {"batches": "last alone"}),
    "a share": ("this is a share between 0 and 1. Asked for is a percentage.", {"unit": 1}),
    "smallest logit": ("the class of the smallest logit is taken. The best one has the largest.", {"best": "smallest"}),
}
