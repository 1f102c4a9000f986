"""What `python -m spvit_mini.benchmark` measures: a file for each of its parts, and timing.py, on which they all stand."""
