"""The course: what a notebook needs, checks that diagnose, and the programs around them.

A lesson begins with

    from spvit_course import begin
    lesson = begin("00")

and `python -m spvit_course` opens the lessons, makes the student copies and keeps the stored lessons in order.
"""

__all__ = ["Lesson", "begin"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import lesson  # imported on first use: the command line needs no torch for --help

    return getattr(lesson, name)
