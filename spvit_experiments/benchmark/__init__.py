"""What `python -m spvit_experiments benchmark` measures: a file for each of its parts, and timing.py, on which they all stand."""

MODULES = {"course": "lessons", "growth": "scaling", "bounds": "targets", "all": "suite"}  # parts whose module has another name
