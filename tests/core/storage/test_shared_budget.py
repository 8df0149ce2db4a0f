"""A budget that several processes share: never more than the limit, whoever races or dies."""

import random
import threading

import pytest

from kling_integrations.core.errors import LedgerError
from kling_integrations.core.storage.folder_records import FolderRecords
from kling_integrations.core.storage.shared_budget import OverBudgetError, SharedBudget, Totals
from kling_integrations.core.storage.sqlite_records import SqliteRecords


@pytest.fixture(params=["folder", "sqlite"])
def store(request, tmp_path):
    if request.param == "folder":
        return FolderRecords(tmp_path / "records")
    return SqliteRecords(tmp_path / "records.sqlite3")


@pytest.fixture
def open_budget(store):
    """A budget as another process opens it: nothing in its memory."""
    return lambda: SharedBudget(store, "runs/1")


def test_of_fifty_that_race_ten_fit(open_budget):
    barrier, won, lost = threading.Barrier(50), [], []

    def reserve(number):
        budget = open_budget()
        barrier.wait()
        try:
            budget.reserve(f"task/{number}", 0.5, 5.0)
            won.append(number)
        except OverBudgetError:
            lost.append(number)

    threads = [threading.Thread(target=reserve, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (10, 40)
    assert open_budget().totals() == Totals(0.0, 5.0)


def test_the_error_has_the_figures(open_budget):
    budget = open_budget()
    budget.reserve("a", 2.0, 5.0)
    budget.paid("a", "g-a")
    budget.settle("a", "g-a", 1.75)
    budget.reserve("b", 3.0, 5.0)
    with pytest.raises(OverBudgetError) as caught:
        open_budget().reserve("c", 0.5, 5.0)
    assert caught.value.message == (
        "This is expected to cost $0.50, and $0.25 is left of $5.00: $1.75 is spent and $3.00 "
        "reserved for what is under way. Nothing was submitted."
    )


def test_what_is_not_spent_is_there_for_others(open_budget):
    open_budget().reserve("a", 5.0, 5.0)
    open_budget().release("a")
    open_budget().reserve("b", 5.0, 5.0)
    open_budget().paid("b", "g-b")
    open_budget().settle("b", "g-b", 0.0)  # a failed generation is not billed
    open_budget().reserve("c", 5.0, 5.0)
    assert open_budget().totals() == Totals(0.0, 5.0)


def test_a_reservation_of_an_attempt_that_died_is_the_next_attempts(open_budget):
    for _ in range(3):
        open_budget().reserve("a", 3.0, 5.0)
    assert open_budget().totals() == Totals(0.0, 3.0)
    open_budget().reserve("a", 4.0, 5.0)  # it asks for more now
    assert open_budget().totals() == Totals(0.0, 4.0)
    with pytest.raises(OverBudgetError, match=r"\$5.00 is left of \$5.00"):
        open_budget().reserve("a", 6.0, 5.0)


def test_an_attempt_that_died_before_the_id_was_noted_is_counted_once(open_budget):
    open_budget().reserve("a", 3.0, 5.0)
    open_budget().settle("a", "g-a", 2.5)
    open_budget().settle("a", "g-a", 2.5)
    assert open_budget().totals() == Totals(2.5, 0.0)


def test_an_attempt_that_died_before_the_mark_is_counted_once(open_budget, store, monkeypatch):
    open_budget().reserve("a", 3.0, 5.0)
    write, calls = store.write, []

    def dies(name, value):
        calls.append(name)
        if len(calls) == 2:
            raise LedgerError("gone")
        write(name, value)

    monkeypatch.setattr(store, "write", dies)
    with pytest.raises(LedgerError):
        open_budget().paid("a", "g-a")
    monkeypatch.undo()
    open_budget().settle("a", "g-a", 2.5)
    assert open_budget().totals() == Totals(2.5, 0.0)


def test_what_may_have_been_paid_stays_counted_beside_what_is_paid_for_it_again(open_budget):
    open_budget().reserve("a", 2.0, 5.0)
    open_budget().reserve("a", 2.0, 5.0, in_doubt=True)
    assert open_budget().totals() == Totals(2.0, 2.0)


def test_what_was_paid_without_a_reservation_counts_from_then_on(open_budget):
    open_budget().settle("a", "g-a", 4.0)
    open_budget().settle("a", "g-a", 4.0)
    assert open_budget().totals() == Totals(4.0, 0.0)
    with pytest.raises(OverBudgetError):
        open_budget().reserve("b", 2.0, 5.0)


def test_an_unknown_cost_is_what_was_expected(open_budget):
    open_budget().reserve("a", 2.0, 5.0)
    open_budget().paid("a", "g-a")
    open_budget().settle("a", "g-a", None)
    assert open_budget().totals() == Totals(2.0, 0.0)


def test_a_table_settles_all_of_its_rounds_at_once(open_budget):
    open_budget().reserve("table", 3.0, 5.0)
    open_budget().reserve("table", 4.0, 5.0)
    open_budget().settle_all("table", 3.5)
    assert open_budget().totals() == Totals(3.5, 0.0)
    open_budget().reserve("table", 1.0, 5.0)  # a retry pays for what had failed
    open_budget().settle_all("table", 4.25)
    assert open_budget().totals() == Totals(4.25, 0.0)


def test_a_reservation_reads_what_is_under_way_and_not_all_that_ever_was(store):
    reads = []

    class Counting(type(store)):
        def read_many(self, names):
            names = list(names)
            reads.append(len(names))
            return super().read_many(names)

    store.__class__ = Counting
    for number in range(60):
        budget = SharedBudget(store, "runs/1")
        budget.reserve(str(number), 0.1, 100.0)
        budget.settle(str(number), f"g-{number}", 0.1)
    assert max(reads) <= 2
    assert SharedBudget(store, "runs/1").totals().spent == pytest.approx(6.0)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_in_whatever_order_no_more_than_the_limit_is_reserved(seed, tmp_path):
    dice, limit = random.Random(seed), 3.0
    store = FolderRecords(tmp_path)
    spent, held = {}, {}
    for step in range(60):
        budget, owner = SharedBudget(store, "runs/1"), f"task/{dice.randrange(8)}"
        match dice.randrange(4):
            case 0 | 1 if owner not in held:
                try:
                    budget.reserve(owner, 0.5, limit)
                    held[owner] = f"g-{step}"
                except OverBudgetError:
                    assert sum(spent.values()) + 0.5 * len(held) + 0.5 > limit
            case 2 if owner in held:
                generation = held.pop(owner)
                if dice.random() < 0.5:  # else it died before it could say so
                    budget.paid(owner, generation)
                spent[generation] = dice.choice([0.5, 0.25, 0.0])
                budget.settle(owner, generation, spent[generation])
            case 3 if owner in held:
                del held[owner]
                budget.release(owner)
        totals = SharedBudget(store, "runs/1").totals()
        assert totals.spent == pytest.approx(sum(spent.values()))
        assert totals.reserved == pytest.approx(0.5 * len(held))
        assert totals.all <= limit + 1e-9


def test_an_unreadable_entry_is_no_leave_to_spend(open_budget, store):
    open_budget().reserve("a", 2.0, 5.0)
    (name,) = store.names("runs/1/entries/")
    store.write(name, {"owner": "a"})
    with pytest.raises(LedgerError, match="unreadable"):
        open_budget().reserve("b", 2.0, 5.0)
