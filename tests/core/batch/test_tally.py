"""How a batch stands."""

from kling_integrations.core.batch.results import Result, RowStatus
from kling_integrations.core.batch.tally import Tally


def test_the_line_says_counts_time_and_money():
    tally = Tally(10, limit=2, running=2, spent=1.5, max_cost=5.0, expected=60.0)
    tally.end(Result(1, "a", RowStatus.COMPLETED))
    tally.end(Result(2, "b", RowStatus.FAILED))
    assert tally.waiting == 6
    assert (
        tally.line()
        == "1 of 10 done · 1 without a video · 2 running · about 4:00 left · $1.50 of $5.00"
    )


def test_the_newest_are_few_however_many_end():
    tally = Tally(1000)
    for number in range(1000):
        tally.end(Result(number, str(number), RowStatus.COMPLETED))
    assert len(tally.newest) == 12
    assert tally.left() is None
