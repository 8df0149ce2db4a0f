"""What Airflow shows of a template field."""

from __future__ import annotations

import copy

import pytest

from kling_integrations.airflow import KlingVideoOperator
from kling_integrations.airflow.masked_fields import MaskedField


def test_rendered_fields_show_neither_signatures_nor_pictures(sandbox, tmp_path):
    signed = "https://store.example/a.png?X-Amz-Signature=secret"
    data = "data:image/png;base64," + "QUJD" * 100
    operator = KlingVideoOperator(
        task_id="v",
        prompt="x",
        image="{{ image }}",
        tail_image=data,
        extra={"image_list": [signed, "{{ image }}"]},
    )
    operator.render_template_fields({"image": signed})
    operator.render_template_fields({"image": signed})  # rendering twice changes nothing
    shown = [str(getattr(operator, field)) for field in operator.template_fields]
    assert not any("secret" in text or "QUJD" in text for text in shown)
    assert MaskedField.value(operator, "image") == signed
    assert MaskedField.value(operator, "tail_image") == data
    assert MaskedField.value(operator, "extra") == {"image_list": [signed, signed]}


SECRET = "X-Amz-Signature=secret"


@pytest.mark.parametrize(
    "address",
    [
        f"HTTPS://store.example/a.png?{SECRET}",
        f"  https://store.example/a.png?{SECRET}",
        f"\thTTps://store.example/a.png?{SECRET}",
        # What a template made, and looks like one.
        f"https://store.example/a.png?{SECRET}&n={{{{",
        f"https://store.example/{{% raw %}}.png?{SECRET}",
        "DATA:image/png;base64," + "c2VjcmV0" * 100,
    ],
)
def test_no_spelling_of_a_rendered_address_is_shown(sandbox, address):
    operator = KlingVideoOperator(
        task_id="v", prompt="x", image="{{ image }}", extra={"image_list": ["{{ image }}"]}
    )
    assert operator.image == "{{ image }}"  # the DAG's own text, which Airflow renders
    operator.render_template_fields({"image": address})
    shown = [str(getattr(operator, field)) for field in operator.template_fields]
    assert not any("secret" in text or "c2VjcmV0" in text for text in shown)
    assert MaskedField.value(operator, "image") == address
    assert MaskedField.value(operator, "extra") == {"image_list": [address]}


def test_each_task_has_its_own_value(sandbox):
    one, other = (KlingVideoOperator(task_id=t, prompt="x", image="{{ a }}") for t in ("a", "b"))
    one.render_template_fields({"a": f"https://h/a.png?{SECRET}"})
    assert other.image == "{{ a }}"
    assert copy.copy(one).image == "https://h/a.png?…"
