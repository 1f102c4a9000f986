"""Interactive figures: number fields if ipywidgets is installed, nothing otherwise."""

from collections.abc import Callable


def explore(draw: Callable, **choices: tuple[int, int, int]) -> None:
    """Display `draw(**values)`, and draw it again when a value changes.

    `choices` gives the minimum, the maximum and the initial value of each argument. Each argument becomes a number field
    of the browser with a label, so that keyboards and screen readers can use it (a slider of ipywidgets 8 has no
    accessible name). Without ipywidgets this does nothing: a lesson shows the same figure before it, for one choice.
    """
    try:
        from ipywidgets import BoundedIntText, HBox, Layout, VBox, interactive_output
    except ImportError:
        return
    from IPython.display import display

    look = {"layout": Layout(width="11em"), "style": {"description_width": "initial"}}  # labels are never cut
    fields = {
        name: BoundedIntText(initial, min=minimum, max=maximum, description=name.replace("_", " "), **look)
        for name, (minimum, maximum, initial) in choices.items()
    }
    row = HBox([*fields.values()], layout=Layout(flex_flow="row wrap"))
    display(VBox([row, interactive_output(draw, fields)]))
