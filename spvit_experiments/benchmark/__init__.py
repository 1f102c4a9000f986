"""Parts of `python -m spvit_experiments benchmark`, a module each, and timing.py, measurements.py and baselines.py for all."""

PARTS = ("attention", "model", "data", "lessons", "scaling", "targets", "page", "all")
