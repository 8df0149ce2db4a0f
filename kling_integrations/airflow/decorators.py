"""``@task.kling``: a function says what to make, and KlingVideoOperator makes it.

The function returns a prompt, or a dictionary of the operator's arguments (its template fields).
What it returns is taken as it is: text that others wrote, a language model for one, never becomes
a template. The arguments of the decorator are rendered as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from ..core.errors import InvalidRequestError
from .exceptions import task_error
from .masked_fields import masked
from .operators import KlingVideoOperator
from .task_identity import TaskIdentity

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


class KlingDecoratedOperator(DecoratedOperator, KlingVideoOperator):
    """KlingVideoOperator with its arguments from a function, which runs before each submit.

    A retry runs the function again; where a video is paid for, that one is gone on with, whatever
    the function returns now, and also where it fails now. After a wait in the triggerer it is not
    run again: what it had returned travels with the deferral, images in their masked form.
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *KlingVideoOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **KlingVideoOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.kling"
    overwrite_rtif_after_execution = True
    _returned: Mapping[str, Any] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        self._stopping.begin(context)
        try:
            self._take(self._ask(context))
        except Exception as error:
            inputs = self._paid_inputs(context)
            if inputs is None:
                raise
            self.log.warning(
                "%s failed (%s: %s). What an earlier attempt paid for is gone on with.",
                self.python_callable.__name__,
                type(error).__name__,
                error,
            )
            self._take(inputs)
        # Not by way of DecoratedOperator, whose execute needs what Airflow 3.0 no longer has.
        return KlingVideoOperator.execute(self, context)

    def execute_complete(
        self, context: Context, event: Any = None, returned: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        # dag.test() drops what travels with a deferral: there the function is asked again.
        self._take(self._ask(context) if returned is None else returned)
        return super().execute_complete(context, event)

    def execute_again(
        self, context: Context, event: Any = None, returned: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return self.execute(context)

    def defer(self, *, kwargs: dict[str, Any] | None = None, **more: Any) -> Any:
        kept = {name: masked(value) for name, value in (self._returned or {}).items()}
        super().defer(kwargs={**(kwargs or {}), "returned": kept}, **more)

    def _ask(self, context: Context) -> dict[str, Any]:
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        return self._arguments(self.python_callable(*self.op_args, **kwargs))

    def _arguments(self, returned: Any) -> dict[str, Any]:
        if isinstance(returned, str):
            returned = {"prompt": returned}
        name = self.python_callable.__name__
        if not isinstance(returned, Mapping):
            raise task_error(
                InvalidRequestError(
                    f"{name} returned {type(returned).__name__}: it returns a prompt, or a "
                    "dictionary of the arguments of KlingVideoOperator. Nothing was submitted."
                ),
                self.kling_conn_id,
            )
        if unknown := sorted(map(str, returned.keys() - set(KlingVideoOperator.template_fields))):
            raise task_error(
                InvalidRequestError(
                    f"{name} returned {', '.join(unknown)}: it may return "
                    f"{', '.join(KlingVideoOperator.template_fields)}. Nothing was submitted."
                ),
                self.kling_conn_id,
            )
        return dict(returned)

    def _take(self, returned: Mapping[str, Any]) -> None:
        self._returned = returned
        for name, value in returned.items():
            setattr(self, name, value)

    @property
    def _given_pictures(self) -> set[str]:
        """What the function returns is given, too: a picture that is None there was lost."""
        return super()._given_pictures | ({"image", "tail_image"} & (self._returned or {}).keys())

    def _paid_inputs(self, context: Context) -> Mapping[str, Any] | None:
        """What an earlier try of this attempt paid for was made of; None where nothing was.

        Not after a clear: that may pay for another one, and must not do so with masked images.
        """
        store = self._open_store(context)
        stored = store.load()
        if stored is None or not store.paid_id or stored.is_cleared(TaskIdentity.of(context)):
            return None
        return stored.record.inputs or {}


def kling_task(
    python_callable: Callable[..., Any] | None = None,
    *,
    prompt: str | None = None,
    model: str | None = None,
    duration: int | str | None = None,
    aspect_ratio: str | None = None,
    negative_prompt: str | None = None,
    cfg_scale: float | str | None = None,
    image: Any = None,
    image_frame: str | None = None,
    tail_image: Any = None,
    audio: bool | str | None = None,
    parameters: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    output_path: str | None = None,
    kling_conn_id: str | None = None,
    wait_for_completion: bool | None = None,
    deferrable: bool | None = None,
    durable: bool | None = None,
    record_path: str | None = None,
    timeout: float | timedelta | None = None,
    poll_interval: float | None = None,
    max_cost_usd: float | str | None = None,
    max_usd_per_run: float | str | None = None,
    on_ambiguous_submit: Literal["fail", "resubmit"] | None = None,
    on_clear: Literal["reuse", "regenerate"] | None = None,
    multiple_outputs: bool = False,
    **kwargs: Any,
) -> TaskDecorator:
    """``@task.kling``, with or without arguments: those of KlingVideoOperator and of every task.

    What the function returns comes before the decorator's arguments. None: the operator's
    default. Type checkers and editors know the arguments of ``kling_task``; ``task.kling`` is the
    same, which they know nothing of.

    ``multiple_outputs`` pushes each entry of the manifest as an XCom of its own. It does not follow
    from the function's annotation, whose dictionary is what goes in. Airflow 3.0 takes no XCom that
    is None, as an entry may be.
    """
    given = {
        name: value
        for name, value in locals().items()
        if name not in ("python_callable", "kwargs") and value is not None
    }
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=KlingDecoratedOperator,
        **given,
        **kwargs,
    )
