"""Pictures that answer to choices: sliders where widgets are at hand, nothing where they are not."""

from collections.abc import Callable


def explore(draw: Callable, **choices: tuple[int, int, int]) -> None:
    """Show `draw(**values)`, and draw it again when a choice changes.

    `choices` gives each argument's first value, last value and start; each becomes a slider that answers to the mouse,
    to arrow keys, and to a number that is typed beside it. Without ipywidgets this does nothing: a lesson shows the
    same picture before it, for one choice.
    """
    try:
        from ipywidgets import IntSlider, VBox, interactive_output
    except ImportError:
        return
    from IPython.display import display

    sliders = {
        name: IntSlider(start, first, last, description=name.replace("_", " "), continuous_update=False)
        for name, (first, last, start) in choices.items()
    }
    display(VBox([*sliders.values(), interactive_output(draw, sliders)]))
