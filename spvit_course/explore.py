"""Pictures that answer to choices: number fields where widgets are at hand, nothing where they are not."""

from collections.abc import Callable


def explore(draw: Callable, **choices: tuple[int, int, int]) -> None:
    """Show `draw(**values)`, and draw it again when a choice changes.

    `choices` gives each argument's least value, largest value and start. Each becomes a number field of the browser's
    own, with its label, so that keyboards and screen readers can use it (a slider of ipywidgets 8 has no name for
    them). Without ipywidgets this does nothing: a lesson shows the same picture before it, for one choice.
    """
    try:
        from ipywidgets import BoundedIntText, HBox, Layout, VBox, interactive_output
    except ImportError:
        return
    from IPython.display import display

    look = {"layout": Layout(width="11em"), "style": {"description_width": "initial"}}  # labels are never cut
    fields = {
        name: BoundedIntText(start, min=least, max=most, description=name.replace("_", " "), **look)
        for name, (least, most, start) in choices.items()
    }
    row = HBox([*fields.values()], layout=Layout(flex_flow="row wrap"))
    display(VBox([row, interactive_output(draw, fields)]))
