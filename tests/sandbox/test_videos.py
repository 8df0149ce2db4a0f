"""The videos are real: they decode, last as long as asked and show what they should."""

import base64
import io
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import av
import pytest
import requests
from PIL import Image

from kling_integrations.sandbox.video.encode import file_size, render
from kling_integrations.sandbox.video.scene import Scene

SMALL = {"size": (160, 90), "fps": 8}


def probe(data):
    """Width, height, seconds, frames (as images), key frames, kinds of streams."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        kinds = [s.type for s in container.streams]
        seconds = float(stream.duration * stream.time_base)
        frames = list(container.decode(stream))
        keys = sum(frame.key_frame for frame in frames)
        images = [frame.to_image() for frame in frames]
    return stream.width, stream.height, seconds, images, keys, kinds


def boxes(data):
    """The names of the file's outermost boxes; fails when their lengths do not add up."""
    names, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        names.append(data[at + 4 : at + 8].decode())
        assert 8 <= size <= len(data) - at
        at += size
    return names


def as_uri(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def difference(one, other):
    return max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


@pytest.mark.parametrize(
    ("ratio", "size"), [("16:9", (160, 90)), ("9:16", (90, 160)), ("1:1", (90, 90))]
)
@pytest.mark.parametrize("duration", [5, 10])
def test_a_video_has_the_asked_length_and_aspect_ratio(caller, ratio, size, duration):
    url = caller.finished_url(aspect_ratio=ratio, duration=duration)
    reply = caller.download(url)
    assert reply.headers["content-type"] == "video/mp4"
    width, height, seconds, images, keys, kinds = probe(reply.content)
    assert (width, height) == size
    assert seconds == pytest.approx(duration)
    assert len(images) == duration * 8
    assert keys >= duration  # one each second, for seeking
    assert kinds == ["video"]


def test_a_video_starts_with_its_index_so_that_it_plays_while_it_loads(caller):
    names = boxes(caller.download(caller.finished_url()).content)
    assert names[0] == "ftyp"
    assert names.index("moov") < names.index("mdat")


def test_the_picture_moves_and_shows_mark_and_progress():
    _, _, _, images, _, _ = probe(render(Scene("m", ("A cat on a roof",), 2), fps=12))
    first, last = images[0], images[-1]
    assert difference(first, last) > 60
    amber = first.getpixel((28, 28))  # in the badge at the upper left
    assert amber[0] > 200
    assert amber[2] < 110
    bar = [image.getpixel((600, image.height - 2)) for image in (first, last)]
    assert bar[1][0] - bar[0][0] > 40  # the bar at the foot has arrived there at the end
    white = sum(min(pixel) > 200 for pixel in first.get_flattened_data())
    assert white > 300  # the prompt


def test_two_prompts_give_two_videos_each_with_its_own_etag(caller):
    one, same, other = (
        caller.download(caller.finished_url(prompt=text)) for text in ("A cat", "A cat", "A dog")
    )
    assert one.content == same.content != other.content
    assert one.headers["ETag"] == same.headers["ETag"] != other.headers["ETag"]


def test_shots_follow_one_another():
    _, _, _, images, _, _ = probe(render(Scene("m", ("One", "Two words here"), 4), **SMALL))
    middle = (10, 35, 150, 65)
    steps = [difference(a.crop(middle), b.crop(middle)) for a, b in itertools.pairwise(images)]
    assert steps.index(max(steps)) == len(images) // 2 - 1


def test_an_image_is_shown_and_decides_the_aspect_ratio(caller):
    image = as_uri(Image.new("RGB", (300, 200), (20, 160, 40)), "JPEG")
    url = caller.finished_url(model="klingai/v2.5-turbo/pro/image-to-video", image_url=image)
    width, height, _, images, _, _ = probe(caller.download(url).content)
    assert width / height == pytest.approx(1.5, abs=0.03)
    red, green, blue = images[0].getpixel((width // 2, height // 3))
    assert green > 2 * red
    assert green > 2 * blue


def test_an_image_named_by_url_is_drawn_and_never_fetched(caller):
    """The address is the sandbox itself: a fetch would be counted."""
    address = f"{caller.sandbox.origin}/sandbox-elsewhere/secret.png"
    url = caller.finished_url(model="klingai/v2.5-turbo/pro/image-to-video", image_url=address)
    assert len(probe(caller.download(url).content)[3]) == 40
    assert caller.sandbox.requests["elsewhere"] == 0


@pytest.mark.parametrize("image", ["data:image/png;base64,AAAA", "data:,", "iVBORw0KGgo" * 9])
def test_an_unreadable_image_does_not_stop_the_video(caller, image):
    url = caller.finished_url(model="klingai/v2.5-turbo/pro/image-to-video", image_url=image)
    assert len(probe(caller.download(url).content)[3]) == 40


def test_sound_comes_with_generate_audio(caller):
    model = "klingai/video-v2-6-pro-text-to-video"
    loud = caller.download(caller.finished_url(model=model)).content  # its default
    silent = caller.download(caller.finished_url(model=model, generate_audio=False)).content
    assert probe(loud)[5] == ["video", "audio"]
    assert probe(silent)[5] == ["video"]
    with av.open(io.BytesIO(loud)) as container:
        assert max(abs(frame.to_ndarray()).max() for frame in container.decode(audio=0)) > 0.01


@pytest.mark.parametrize(
    "text",
    ["", "x" * 3000, "long " * 500, "tab\tand\nnew line\x00", "<b>&amp;", "日本語 🦝 العربية"],
    ids=["empty", "one long word", "many words", "control", "markup", "other scripts"],
)
@pytest.mark.parametrize("ratio", [16 / 9, 9 / 16])
def test_any_prompt_can_be_drawn(text, ratio):
    assert len(probe(render(Scene("m", (text,), 0.5, ratio), **SMALL))[3]) == 4


@pytest.mark.parametrize("seconds", [0.5, 5, 15])
@pytest.mark.parametrize(("size", "fps"), [((160, 90), 8), ((64, 36), 30), ((640, 360), 4)])
def test_even_noise_stays_below_the_size_that_is_known_beforehand(seconds, size, fps):
    noise = as_uri(Image.effect_noise((2 * size[0], 2 * size[1]), 120))
    scene = Scene("m", ("noise",), seconds, image=noise, audio=True)
    data = render(scene, size, fps)
    assert len(data) == file_size(scene, size, fps)
    assert boxes(data)[-1] == "free"


def test_the_size_is_stated_before_the_rendering(caller):
    id = caller.submit()
    caller.sandbox.finish(id)
    video = caller.poll(id).json()["video"]
    assert caller.sandbox.requests["download"] == 0
    assert len(caller.download(video["url"]).content) == video["file_size"]


def test_nothing_is_rendered_before_somebody_downloads():
    code = (
        "import sys, requests\n"
        "from kling_integrations.sandbox import Sandbox\n"
        "with Sandbox(seconds=0) as sandbox:\n"
        "    url = sandbox.base_url + '/v2/video/generations'\n"
        "    keys = {'Authorization': 'Bearer sandbox'}\n"
        "    body = {'model': 'klingai/v2.5-turbo/pro/text-to-video', 'prompt': 'x'}\n"
        "    id = requests.post(url, json=body, headers=keys).json()['id']\n"
        "    poll = requests.get(url, params={'generation_id': id}, headers=keys)\n"
        "    print(poll.json()['status'])\n"
        "print([name for name in ('av', 'PIL') if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == ["completed", "[]"], run.stderr


def test_without_the_extra_packages_a_download_says_what_to_install(caller, monkeypatch):
    url = caller.finished_url()
    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    reply = caller.download(url)
    assert reply.status_code == 500
    assert "pip install 'kling-integrations[sandbox]'" in reply.json()["message"]


def test_a_video_is_rendered_once_for_all_who_ask(caller, monkeypatch):
    from kling_integrations.sandbox.video import encode as module

    count, real = [], module.render
    monkeypatch.setattr(module, "render", lambda *a, **k: count.append(a) or real(*a, **k))
    urls = [caller.finished_url() for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        files = {reply.content for reply in pool.map(caller.download, urls * 3)}
    assert len(files) == 1
    assert len(count) == 1


# --- the CDN -------------------------------------------------------------------------------------


def test_the_address_is_signed_dated_and_not_the_gateways(caller):
    url = urlsplit(caller.finished_url())
    assert url.path.startswith("/sandbox-cdn/")
    assert "ksTime=" in url.query
    assert "signature=" in url.query


def test_a_wrong_signature_or_a_past_date_is_403(caller):
    url = caller.finished_url()
    assert caller.download(url.split("?")[0]).status_code == 403
    assert caller.download(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 403
    assert caller.download(url.replace("ksTime=", "ksTime=0")).status_code == 403
    unknown = url.replace("/sandbox-cdn/sandbox-", "/sandbox-cdn/other-")
    assert caller.download(unknown).status_code == 404


def test_the_cdn_refuses_and_counts_api_keys(caller):
    url = caller.finished_url()
    reply = requests.get(url, headers={"Authorization": "Bearer sandbox"}, timeout=5)
    assert reply.status_code == 400
    assert caller.sandbox.leaked_keys == 1
    assert caller.download(url).ok
    assert caller.sandbox.leaked_keys == 1


def test_the_cdn_can_be_another_host_name(make):
    with make(cdn_host="localhost") as caller:
        url = caller.finished_url()
        assert urlsplit(url).hostname == "localhost"
        assert caller.download(url).ok


@pytest.mark.parametrize(
    ("asked", "code", "span"),
    [
        (None, 200, slice(None)),
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-50", 206, slice(-50, None)),
        ("bytes=10-99999999", 206, slice(10, None)),
        ("bytes=nonsense", 200, slice(None)),
        ("bytes=0-1,5-9", 200, slice(None)),
    ],
)
def test_ranges_are_served_as_asked(caller, asked, code, span):
    url = caller.finished_url()
    whole = caller.download(url).content
    reply = caller.download(url, headers={"Range": asked} if asked else {})
    assert reply.status_code == code
    assert reply.content == whole[span]
    if code == 206:
        start = span.indices(len(whole))[0]
        stop = start + len(reply.content) - 1
        assert reply.headers["Content-Range"] == f"bytes {start}-{stop}/{len(whole)}"


def test_a_range_beyond_the_end_is_416_and_a_changed_file_comes_whole(caller):
    url = caller.finished_url()
    whole = caller.download(url)
    beyond = caller.download(url, headers={"Range": f"bytes={len(whole.content)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["Content-Range"] == f"bytes */{len(whole.content)}"
    changed = {"Range": "bytes=10-", "If-Range": '"another"'}
    assert caller.download(url, headers=changed).status_code == 200
    same = {"Range": "bytes=10-", "If-Range": whole.headers["ETag"]}
    assert caller.download(url, headers=same).status_code == 206


def test_a_head_request_tells_the_length(caller):
    url = caller.finished_url()
    reply = requests.head(url, timeout=10)
    assert reply.ok
    assert int(reply.headers["content-length"]) == len(caller.download(url).content)
