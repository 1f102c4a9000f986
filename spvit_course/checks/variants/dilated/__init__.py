"""The variant `dilated`: its exercises, their answers with options, and known mistakes."""

from .exercises import EXERCISES

__all__ = ["EXERCISES"]
