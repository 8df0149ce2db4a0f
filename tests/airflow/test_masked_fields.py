"""What Airflow shows of a template field."""

from __future__ import annotations

from kling_integrations.airflow import KlingVideoOperator


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
    from kling_integrations.airflow.masked_fields import MaskedField

    assert MaskedField.value(operator, "image") == signed
    assert MaskedField.value(operator, "tail_image") == data
    assert MaskedField.value(operator, "extra") == {"image_list": [signed, signed]}
