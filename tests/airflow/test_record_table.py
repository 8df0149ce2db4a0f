"""Every cell of the table in the documents, with the stores of three versions of Airflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from kling_integrations import KlingClient
from kling_integrations.airflow import KlingVideoOperator
from kling_integrations.airflow.durable import SubmissionStore
from kling_integrations.airflow.exceptions import KlingTaskError
from kling_integrations.core.records import unreachable
from kling_integrations.core.storage.folder_records import FolderRecords

from .conftest import RACCOON, Store, Task
from .record_table import EVENTS, KILLS, ONLY_ON, STATES, VERSIONS, Cell, Outcome, table

pytestmark = pytest.mark.thorough  # whole lives of tasks, side by side and one after the other

DOCUMENT = Path(__file__).parents[2] / "docs" / "explanation" / "airflow-records.md"


class Killed(BaseException):
    """The process is gone: nothing that follows is done."""


class Scene:
    """A task under one version of Airflow, brought into a state, to which something happens."""

    def __init__(self, version: str, sandbox: Any, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.version, self.sandbox, self.folder, self.patch = version, sandbox, folder, patch
        self.options: dict[str, Any] = {"prompt": RACCOON}
        store = None if version == "3.0" else Store()
        self.task = Task(self.make, store, retries=3)
        self.first: str | None = None

    def make(self) -> KlingVideoOperator:
        output_path = str(self.folder / "video.mp4")
        return KlingVideoOperator(
            task_id="video", output_path=output_path, deferrable=True, **self.options
        )

    @property
    def records(self) -> list[Path]:
        return list((self.folder / ".kling").rglob("*.json"))

    # --- states --------------------------------------------------------------------------------

    def reach(self, state: str) -> None:
        if state == "running":
            self.task.start()
        elif state == "finished":
            self.task.run()
        elif state == "failed":
            self.sandbox.fails = "provider"
            with pytest.raises(KlingTaskError):
                self.task.run()
            self.sandbox.fails = None
        else:
            self.sandbox.fault("submit", "drop-after")
            with pytest.raises(KlingTaskError):
                self.task.run()
            self.sandbox.finish()  # from then on the log lists it
        self.first = next(iter(self.sandbox.jobs))

    # --- events --------------------------------------------------------------------------------

    def clear(self, *, keeps: bool = False) -> None:
        self.task.clear(discards=self.version == "3.4" and not keeps)

    def deleted(self) -> None:
        if self.task.store is not None:
            self.task.store.rows.clear()
        self.task.tries, self.task.max_tries = 0, self.task.retries

    def other_worker(self) -> None:
        self.patch.setenv("KLING_HOME", str(self.folder / "another-worker"))
        self.clear()

    def changed(self) -> None:
        self.options["prompt"] = "A black fox"
        self.clear()

    def regenerate(self) -> None:
        self.options["on_clear"] = "regenerate"
        self.clear()

    def fewer_retries(self) -> None:
        self.task.retries = self.task.max_tries - self.task.tries
        self.regenerate()

    def another_cleared(self) -> None:
        self.options["on_clear"] = "regenerate"
        self.task.dag_run.clear_number += 1

    def renamed(self) -> None:
        """Airflow marks the old name "removed", and the new one begins with its first try."""
        store = None if self.version == "3.0" else Store()
        run_id = self.task.run_id
        self.task = Task(self.make, store, retries=3, run_id=run_id, task_id="movie")
        self.patch.setattr(
            "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance.get_task_states",
            lambda **_: {run_id: {"video": "removed"}},
        )

    def storage_down(self) -> None:
        with self.patch.context() as patch:
            self.break_storage(patch, "read", "write", "names", "create")
            with pytest.raises(KlingTaskError):
                self.version == "3.0" or self.forget_state()
                self.run()

    def break_storage(self, patch: pytest.MonkeyPatch, *verbs: str) -> None:
        def away(*_: Any) -> Any:
            raise unreachable("the bucket", OSError("away"))

        for verb in verbs:
            patch.setattr(FolderRecords, verb, away)

    def forget_state(self) -> None:
        """Otherwise the task state store alone would be enough to go on."""
        self.task.store.rows.clear()

    def spoil_one(self) -> None:
        for record in self.records:
            record.write_text("{")

    def spoil_all(self) -> None:
        self.spoil_one()
        if self.task.store is not None:
            self.task.store.set("kling_submission", ["what", "is", "this"])

    def upgrade(self) -> None:
        """What was there was written by 0.1: in the task state store, and nowhere else."""
        row = self.task.store.get("kling_submission")
        for name in ("revision", "attempt", "try_number", "earlier_posts"):
            row.pop(name, None)
        self.task.store.rows.clear()
        self.task.store.set("kling_submission", row)
        for record in self.records:
            record.unlink()

    # --- what comes of it ----------------------------------------------------------------------

    def run(self) -> Any:
        """A whole attempt, whichever pauses it makes in the triggerer."""
        result = self.task.start()
        while isinstance(result, TaskDeferred):
            try:
                result = self.task.resume()
            except TaskDeferred as deferred:
                result = self.task.deferred_again(deferred)
        return result

    def outcome(self) -> Cell:
        before = len(self.sandbox.posts)
        try:
            made = self.run()["generation_id"]
        except KlingTaskError:
            assert len(self.sandbox.posts) == before
            return Cell(Outcome.STOPS, before)
        outcome = Outcome.SAME if made == self.first else Outcome.NEW
        if self.first is None:
            (outcome,) = [Outcome.FIRST] if made in self.sandbox.jobs else []
        return Cell(outcome, len(self.sandbox.posts))


EFFECTS: dict[str, Callable[[Scene], object]] = {
    "retry": lambda scene: None,
    "clear": Scene.clear,
    "clear with keep_task_state": lambda scene: scene.clear(keeps=True),
    "clear of the whole run": Scene.clear,
    "mark failed, then clear": Scene.clear,
    "mark success": lambda scene: None,
    "backfill again": Scene.clear,
    "run deleted and made again under the same id": Scene.deleted,
    "clear, and another worker runs it": Scene.other_worker,
    "clear with a changed input": Scene.changed,
    'clear with on_clear="regenerate"': Scene.regenerate,
    'clear with on_clear="regenerate" and fewer retries than before': Scene.fewer_retries,
    'another task of the run cleared, then a retry with on_clear="regenerate"': (
        Scene.another_cleared
    ),
    "renamed in its file, in the same run": Scene.renamed,
    "storage down for a while, then a retry": Scene.storage_down,
    "one of two stores unreadable, then a retry": Scene.spoil_one,
    "every store unreadable, then a retry": Scene.spoil_all,
    "upgrade of this package, then a retry": Scene.upgrade,
}


@pytest.fixture(params=VERSIONS)
def scene(request, slower_sandbox, tmp_path, monkeypatch) -> Scene:
    return Scene(request.param, slower_sandbox, tmp_path, monkeypatch)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_what_an_event_means_for_the_money(scene, event, state):
    if scene.version not in ONLY_ON.get(event, VERSIONS):
        return
    scene.reach(state)
    EFFECTS[event](scene)
    expected = EVENTS[event][state]
    if expected.outcome is Outcome.NOTHING:
        assert len(scene.sandbox.posts) == expected.posts
    else:
        assert scene.outcome() == expected


@pytest.mark.parametrize("again", ["retry", "clear"])
@pytest.mark.parametrize("where", KILLS)
def test_where_the_first_attempt_ended(scene, where, again, monkeypatch):
    with monkeypatch.context() as patch:
        raised = end_the_first(scene, where, patch)
        with pytest.raises(raised):
            scene.task.start()
    scene.sandbox.finish()
    if again == "clear":
        scene.clear()
    scene.first = next(iter(scene.sandbox.jobs), None)
    assert scene.outcome() == KILLS[where]


def end_the_first(scene: Scene, where: str, patch: pytest.MonkeyPatch) -> type[BaseException]:
    submit = KlingClient.submit

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    def killed_after(client: Any, *arguments: Any, **options: Any) -> Any:
        submit(client, *arguments, **options)
        raise Killed

    def down_after(client: Any, *arguments: Any, **options: Any) -> Any:
        generation = submit(client, *arguments, **options)
        scene.break_storage(patch, "write")
        if scene.task.store is not None:
            patch.setattr(scene.task.store, "set", lambda *_, **__: 1 / 0)
        patch.setattr(KlingVideoOperator, "_wait_and_deliver", killed)
        return generation

    match where:
        case "killed before the intent is written":
            patch.setattr(SubmissionStore, "intend", killed)
        case "killed between the intent and the POST":
            patch.setattr(KlingClient, "submit", killed)
        case "killed in the POST":
            patch.setattr(KlingClient, "submit", killed_after)
        case "killed before the id is written":
            patch.setattr(SubmissionStore, "note", killed)
        case "stopped by storage that was down before the POST":
            scene.break_storage(patch, "write")
            return KlingTaskError
        case "killed while storage was down after the POST":
            patch.setattr(KlingClient, "submit", down_after)
    return Killed


def test_the_documents_show_this_table():
    assert table() in DOCUMENT.read_text("utf-8")
