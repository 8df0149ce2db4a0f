"""What a submit may hold, and how the sandbox refuses the rest."""

import pytest


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"prompt": None}, "prompt: Required. Expected string, received undefined"),
        ({"prompt": "  "}, "prompt: Expected at least 1 character(s)"),
        ({"prompt": 7}, "prompt: Expected string, received integer"),
        ({"duration": 7}, "Expected 5 | 10, received 7"),
        ({"duration": "6"}, "Expected 5 | 10, received 6"),
        ({"duration": 5.5}, "duration: Expected integer, received number"),
        ({"aspect_ratio": "4:3"}, "Expected '16:9' | '9:16' | '1:1', received '4:3'"),
        ({"cfg_scale": 3}, "cfg_scale: Expected a number <= 1, received 3"),
        ({"cfg_scale": "much"}, "cfg_scale: Expected number, received string"),
        (
            {"model": "klingai/video-v2-6-pro-text-to-video", "prompt": "x" * 2501},
            "prompt: Expected at most 2500 character(s), received 2501",
        ),
        (
            {"model": "klingai/v2.5-turbo/pro/image-to-video"},
            "image_url: Required. Expected string, received undefined",
        ),
        (
            {"model": "klingai/v2.5-turbo/pro/image-to-video", "image_url": "my cat.png"},
            "image_url: Invalid url. Expected a URL or a data URI, received 'my cat.png'",
        ),
        (
            {"model": "klingai/video-v3-pro-text-to-video", "prompt": ""},
            "Expected prompt or multi_prompt, received neither",
        ),
        (
            {
                "model": "klingai/video-v3-omni-720p-image-to-video",
                "image_url": "https://example.com/a.png",
                "tail_image_url": "https://example.com/b.png",
            },
            "tail_image_url: Expected generate_audio=false with it, received true",
        ),
        (
            {
                "model": "kling-video/v1.6/standard/multi-image-to-video",
                "image_list": ["https://example.com/a.png"],
            },
            "image_list: Expected at least 2 item(s), received 1",
        ),
        (
            {
                "model": "kling-video/v1/standard/text-to-video",
                "advanced_camera_control": {"movement_type": "spin", "movement_value": 3},
            },
            "advanced_camera_control.movement_type: Invalid enum value.",
        ),
    ],
)
def test_a_bad_value_gets_400_with_what_was_expected_and_what_received(caller, changes, hint):
    body = {"model": "klingai/v2.5-turbo/pro/text-to-video", "prompt": "A cat", **changes}
    reply = caller.post({name: value for name, value in body.items() if value is not None})
    assert reply.status_code == 400
    assert "Body validation error!" in reply.text
    message = reply.json()["message"]
    assert hint in (message if isinstance(message, str) else "; ".join(message))
    assert caller.sandbox.paid == 0
    assert not caller.sandbox.posts[0].accepted


@pytest.mark.parametrize("duration", [5, "5", 10, "10"])
def test_a_duration_may_be_a_number_or_text(caller, duration):
    assert caller.submit(duration=duration)


def test_what_the_documents_do_not_name_passes(caller):
    assert caller.submit(external_task_id="mine", sparkle=True)


def test_bare_base64_is_an_image_too(caller):
    assert caller.submit(model="klingai/v2.5-turbo/pro/image-to-video", image_url="iVBORw0KGgo" * 9)
