"""All studies by name: those of the package, and those that a user's file adds with `register_study`."""

from spvit_mini.errors import UserError, near

from .core_studies import CORE_STUDIES
from .large_studies import LARGE_STUDIES
from .lesson_studies import LESSON_STUDIES
from .study import TUNING, Study

_STUDIES = {study.name: study for study in (*LESSON_STUDIES, *CORE_STUDIES, *LARGE_STUDIES)}
_BUILT_IN = frozenset(_STUDIES)


def register_study(study: Study) -> Study:
    """Add a study of your own to the catalog, under its name; returns it.

    Registering a name again replaces your earlier study. Raises UserError for a name that the package uses.
    """
    if study.name in _BUILT_IN or study.name.removesuffix(TUNING) in _BUILT_IN or study.name.endswith(TUNING):
        raise UserError(
            f"the name of the study is {study.name!r}; expected a name that no study of spvit_experiments has, without "
            f"{TUNING} at its end. Rename the study."
        )
    _STUDIES[study.name] = study
    return study


def list_studies() -> dict[str, Study]:
    """List all studies by name; the tuning of a study precedes the study."""
    studies = {}
    for study in _STUDIES.values():
        if study.tuning:
            studies[study.name + TUNING] = study.tuning_study()
        studies[study.name] = study
    return studies


def get_study(name: str) -> Study:
    """Find a study by name. Raises UserError, with the nearest names, if there is none."""
    studies = list_studies()
    if name not in studies:
        raise UserError(
            f"no study is called {name!r}.{near(name, studies)} List all studies with python -m spvit_experiments study --list; "
            "name a file that registers your own with --import."
        )
    return studies[name]
