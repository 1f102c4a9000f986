"""The course: what a notebook needs, checks that diagnose, and the programs around them.

A lesson begins with

    from spvit_course import begin
    lesson = begin("00")

and `python -m spvit_course` opens the lessons, makes the students' copies and keeps the stored ones in order.
"""

from .lesson import Lesson, begin

__all__ = ["Lesson", "begin"]
