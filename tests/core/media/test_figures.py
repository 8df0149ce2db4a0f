"""What a matplotlib figure is known by, however often it was drawn."""

import io

import numpy as np
import pytest

from kling_integrations.core import media
from kling_integrations.core.media import images

pyplot = pytest.importorskip("matplotlib.pyplot")


def encoded(value):
    return images.encode(value, name="image", model_id=None)


def identity(value):
    return encoded(value).identity


@pytest.fixture(autouse=True)
def without_windows():
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


def figure(layout, formatter=None):
    drawn, axes = pyplot.subplots(2, 2, layout=layout, figsize=(4, 3))
    image = axes[0, 0].imshow(np.random.default_rng(0).random((9, 9)))
    drawn.colorbar(image, ax=axes[0, 0])
    axes[1, 1].plot([1, 2e5], [3, 4e5], label="x")
    axes[1, 1].legend()
    drawn.suptitle("Sales")
    if formatter:
        axes[1, 0].xaxis.set_major_formatter(formatter)
    return drawn


def places(drawn):
    return [tuple(each.get_position(original=True).bounds) for each in drawn.axes]


@pytest.mark.parametrize("layout", [None, "tight", "constrained", "compressed"])
def test_an_unchanged_figure_is_one_request_however_often_it_was_drawn(layout):
    drawn = figure(layout)
    first = identity(drawn)
    before = places(drawn)
    again = identity(drawn)
    assert places(drawn) == before  # it is not touched
    drawn.canvas.draw()  # shown
    third = identity(drawn)
    drawn.savefig(io.BytesIO(), bbox_inches="tight")
    assert {first, again, third, identity(drawn), identity(figure(layout))} == {first}


def test_a_figure_that_each_drawing_moves_to_and_fro_is_one_request():
    drawn, axes = pyplot.subplots(2, 2, layout="tight")
    drawn.colorbar(axes[0, 0].imshow(np.random.default_rng(0).random((9, 9))), ax=axes[0, 0])
    found, looks = set(), set()
    for _ in range(3):
        found.add(identity(drawn))
        drawn.savefig(look := io.BytesIO(), format="png")
        looks.add(look.getvalue())
    assert len(found) == 1
    assert len(looks) > 1


def test_a_figure_with_a_function_in_it_is_copied_as_well():
    drawn = figure("tight", lambda value, _: f"{value:.0f} €")
    first, before = identity(drawn), places(drawn)
    assert identity(drawn) == first
    assert places(drawn) == before


def test_a_figure_that_was_changed_is_another_request():
    drawn = figure("constrained")
    first = identity(drawn)
    drawn.axes[0].set_title("Costs")
    assert identity(drawn) != first


def test_a_figure_that_is_handed_over_does_not_show_a_second_time():
    drawn = figure("tight")
    open_before = pyplot.get_fignums()
    identity(drawn)
    assert pyplot.get_fignums() == open_before
    assert pyplot.gcf() is drawn


def test_a_figure_that_cannot_be_copied_is_one_request_all_the_same():
    drawn = figure("tight")
    drawn.note = (each for each in ())  # no generator can be copied
    assert identity(drawn) == identity(drawn)


def test_what_was_paid_for_as_a_figure_was_drawn_the_first_time_is_found():
    drawn = figure("constrained")
    as_before = io.BytesIO()
    picture = encoded(drawn)
    drawn.savefig(as_before, format="png", metadata={"Software": None})
    assert picture.earlier == media.image_url(as_before.getvalue())


def test_an_object_that_saves_a_figure_is_known_as_the_figure():
    """Grids of seaborn, say: they hold a figure and save it in their own way."""

    class Grid:
        def __init__(self, held):
            self.figure = held

        def savefig(self, *args, **options):
            self.figure.savefig(*args, bbox_inches="tight", **options)

    grid = Grid(figure("tight"))
    assert identity(grid) == identity(grid)
