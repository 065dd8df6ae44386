"""The Python kernel: ipykernel, and what turns data frames, charts, images and JSON into results."""

import io
import math
import os
import sys
import warnings
from typing import Any

from application import Application, leave_folder
from IPython.core.formatters import JSONFormatter
from IPython.display import display

DATA, CHART = "e2b/data", "e2b/chart"
CELLS_MAX = 200_000
"""Of a data frame that is sent as data; a larger one has its text and its HTML, which pandas shortens."""
JSON_MAX = 4 * 1024 * 1024
"""Bytes of a dictionary or list that is sent as JSON too."""


class DataFormatter(JSONFormatter):
    format_type = DATA
    print_method = "_repr_e2b_data_"


class ChartFormatter(JSONFormatter):
    format_type = CHART
    print_method = "_repr_e2b_chart_"


def frame_data(frame: Any) -> dict[str, list[Any]] | None:
    """{column: [values]}, as JSON can say them: times in ISO form, what is missing as null."""
    if frame.size > CELLS_MAX:
        return None
    return {str(column): [plain(value) for value in frame.iloc[:, at]] for at, column in enumerate(frame.columns)}


def plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return None if value != value else value.isoformat()  # noqa: PLR0124 - NaT is not itself
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return None if type(value).__name__ == "NAType" else str(value)


def chart(figure: Any) -> Any:
    from e2b_charts import chart_figure_to_dict

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the package, not about the user's code
            return finite(chart_figure_to_dict(figure))
    except Exception:  # a plot that e2b_charts cannot read is still a picture
        return None


def finite(value: Any) -> Any:
    """As JSON can say it: numpy's numbers as Python's, without those that JSON has no form for."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(value: Any) -> Any:
    import json

    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return json.loads(text) if len(text) <= JSON_MAX else None


def register(shell: Any) -> None:
    formatter = shell.display_formatter
    for each in (DataFormatter(parent=formatter), ChartFormatter(parent=formatter)):
        formatter.formatters[each.format_type] = each
        formatter.active_types = [*formatter.active_types, each.format_type]
    for module in ("pandas", "pandas.core.frame"):
        formatter.formatters[DATA].for_type_by_name(module, "DataFrame", frame_data)
    for kind in (dict, list):
        formatter.formatters["application/json"].for_type(kind, as_json)


def patch_images() -> None:
    """`Image.show()`, and `Image.save()` to a file, show the image as a result."""
    from PIL import Image

    save = Image.Image.save
    Image.Image._repr_jpeg_ = lambda self: None  # the PNG is enough

    def saved(self: Any, fp: Any, *args: Any, **kwargs: Any) -> None:
        save(self, fp, *args, **kwargs)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if isinstance(fp, str | os.PathLike) and not caller.startswith("matplotlib"):
            display(self)

    Image.Image.show = lambda self, *_, **__: display(self)
    Image.Image.save = saved


def warm_up(shell: Any) -> None:
    """Have in memory what nearly all code imports: so it is in the checkpoint that sandboxes start from."""
    import e2b_charts  # noqa: F401
    import matplotlib.figure
    import matplotlib.pyplot
    import numpy  # noqa: F401
    import pandas  # noqa: F401

    figure = matplotlib.figure.Figure()
    figure.add_subplot().plot([0, 1])
    figure.savefig(io.BytesIO())  # finds the fonts
    matplotlib.figure.Figure._repr_e2b_chart_ = chart  # a method: inline plots forget formatters that were registered
    try:
        raise ValueError
    except ValueError:
        shell.InteractiveTB.structured_traceback(*sys.exc_info())


def main() -> None:
    leave_folder()
    app: Any = Application.instance()
    app.initialize(sys.argv[1:])
    warm_up(app.shell)
    patch_images()
    register(app.shell)
    app.start()


if __name__ == "__main__":
    main()
