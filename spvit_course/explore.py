"""Interactive figures: number fields in a browser; elsewhere the figure once."""

from collections.abc import Callable


def explore(draw: Callable, **choices: tuple[int, int, int]) -> None:
    """Display `draw(**values)`, and draw it again when a value changes.

    `choices` gives the minimum, the maximum and the initial value of each argument. Each argument becomes a number field
    of the browser with a label, so that keyboards and screen readers can use it (a slider of ipywidgets 8 has no
    accessible name). Without a browser, as under nbconvert, or without ipywidgets, the initial values are drawn once.
    """
    try:
        from ipywidgets import BoundedIntText, HBox, Layout, VBox, interactive_output
    except ImportError:
        interactive_output = None
    if interactive_output is None or not has_browser():
        draw(**{name: initial for name, (_, _, initial) in choices.items()})
        return
    from IPython.display import display

    look = {"layout": Layout(width="11em"), "style": {"description_width": "initial"}}  # labels are never cut
    fields = {
        name: BoundedIntText(initial, min=minimum, max=maximum, description=name.replace("_", " "), **look)
        for name, (minimum, maximum, initial) in choices.items()
    }
    row = HBox([*fields.values()], layout=Layout(flex_flow="row wrap"))
    display(VBox([row, interactive_output(draw, fields)]))
    print("Run this cell again where the fields show an error (“model not found”), as after a restart of the kernel.")


def has_browser() -> bool:
    """Tell whether a person can type into the program that asked for this cell: JupyterLab, VS Code, Colab.

    nbconvert, nbclient and nbval say that nobody can. They must not get an Output widget: nbclient sends its state back on
    the channel on which it waits for the cell's end, and then may never see that end (pyzmq's sockets are edge-triggered).
    """
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent().get("content", {}).get("allow_stdin"))
