"""Pictures in, frames out."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from kling_integrations.core import catalog, media
from kling_integrations.core.errors import InvalidRequestError, KlingError
from kling_integrations.core.media import frames

RED = (200, 30, 40)


def encoded(form: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    picture = io.BytesIO()
    Image.new("RGB", size, RED).save(picture, form, **options)
    return picture.getvalue()


def decoded(uri: str) -> tuple[str, Image.Image]:
    head, _, body = uri.partition(";base64,")
    return head.removeprefix("data:"), Image.open(io.BytesIO(base64.b64decode(body)))


def refusal(value: object, **options: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        media.image_url(value, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message, "one sentence"
    return message


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 24 pictures a second; each picture's grey tells its number. With sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=24, options={"crf": "1", "g": "48"})
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        audio = container.add_stream("aac", rate=48_000, layout="mono")
        for number in range(48):
            grey = np.full((360, 640, 3), number * 5, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(video.encode())
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 96_000), np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate = 48_000
        container.mux(audio.encode(silence))
        container.mux(audio.encode())
    return path


def number_of(picture: Image.Image) -> int:
    value = picture.convert("L").getpixel((320, 180))
    assert isinstance(value, int)
    return round(value / 5)


# Images in


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/cat.png?token=1",
        "HTTP://example.com/cat.png",
        "data:image/png;base64,iVBORw0KGgo=",
    ],
)
def test_urls_and_data_uris_are_sent_as_they_are(text: str) -> None:
    assert media.image_url(text) == text


@pytest.mark.parametrize(
    ("form", "mime"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
    ],
)
def test_a_file_becomes_a_data_uri_with_the_type_of_its_content_whatever_its_name(
    tmp_path: Path, form: str, mime: str
) -> None:
    path = tmp_path / "misnamed.txt"
    path.write_bytes(encoded(form))
    for value in (path, str(path), f"file://{path}"):
        kind, picture = decoded(media.image_url(value))
        assert (kind, picture.size) == (mime, (40, 30))


def test_photos_of_phones_are_known_by_their_brand() -> None:
    heic = b"\0\0\0\x18ftypheic" + bytes(12)
    assert media.image_url(heic).startswith("data:image/heic;base64,")
    assert media.image_type(b"\0\0\0\x18ftypavif" + bytes(12)) == "image/avif"
    assert media.image_type(b"\0\0\0\x18ftypisom" + bytes(12)) is None  # a video


def test_a_home_folder_in_a_path_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat.png").write_bytes(encoded("PNG"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert media.image_url("~/cat.png").startswith("data:image/png")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_in_every_form_become_a_data_uri(kind: type) -> None:
    assert decoded(media.image_url(kind(encoded("JPEG"))))[0] == "image/jpeg"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK", "YCbCr", "F", "I;16"])
def test_a_pil_image_of_any_mode_becomes_a_png(mode: str) -> None:
    kind, picture = decoded(media.image_url(Image.new(mode, (32, 24))))
    assert (kind, picture.size) == ("image/png", (32, 24))


def test_an_array_becomes_the_picture_that_it_holds() -> None:
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:, :] = RED
    as_floats = pixels / 255
    channels_first = np.moveaxis(pixels, 2, 0)
    for value in (pixels, as_floats, as_floats.astype(np.float32), channels_first):
        _, picture = decoded(media.image_url(value))
        assert picture.size == (32, 24)
        assert picture.convert("RGB").getpixel((5, 5)) == RED
    for shape in ((24, 32), (24, 32, 1), (24, 32, 4)):
        assert decoded(media.image_url(np.full(shape, 9, np.uint8)))[1].size == (32, 24)
    assert decoded(media.image_url(np.eye(8, dtype=bool)))[1].getpixel((3, 3)) == 255


def test_a_tensor_is_taken_by_its_array() -> None:
    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return np.zeros((3, 24, 32), np.float32)

    assert decoded(media.image_url(Tensor()))[1].size == (32, 24)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.full((4, 4, 3), 128.0), "between 0 and 1"),
        (np.full((4, 4, 3), np.nan), "between 0 and 1"),
        (np.zeros((9, 9, 7), np.uint8), "9×9×7"),
        (np.zeros(16, np.uint8), "16"),
        (np.zeros((0, 4, 3), np.uint8), "0×4×3"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(array: np.ndarray, says: str) -> None:
    assert says in refusal(array)


def test_a_matplotlib_figure_becomes_the_same_png_each_time() -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), dpi=100)
    figure.subplots().plot([1, 2, 3])
    uri = media.image_url(figure)
    kind, picture = decoded(uri)
    assert (kind, picture.size) == ("image/png", (400, 300))
    assert media.image_url(figure) == uri
    assert "Software" not in picture.info


def test_an_earlier_result_gives_its_last_frame() -> None:
    class Result:
        def last_frame(self) -> Image.Image:
            return Image.new("RGB", (64, 36), RED)

        def _repr_png_(self) -> bytes:
            raise AssertionError("the poster is not what the video ended with")

    assert decoded(media.image_url(Result()))[1].getpixel((0, 0)) == RED


@pytest.mark.parametrize("wrap", [bytes, lambda png: (png, {"width": 1}), base64.b64encode])
def test_what_shows_itself_as_png_in_a_notebook_is_an_image(wrap: object) -> None:
    class Shown:
        def _repr_png_(self) -> object:
            value = wrap(encoded("PNG"))  # type: ignore[operator]
            return value.decode() if wrap is base64.b64encode else value

    assert decoded(media.image_url(Shown()))[1].size == (40, 30)


def test_base64_of_an_image_is_sent_as_it_is_but_for_line_breaks() -> None:
    plain = base64.b64encode(encoded("PNG")).decode()
    assert media.image_url(plain) == plain
    wrapped = base64.encodebytes(encoded("PNG")).decode()
    assert "\n" in wrapped
    assert media.image_url(wrapped) == plain


def test_a_path_that_is_not_there_is_named() -> None:
    assert refusal("no/such/cat.png") == "image: no such file: no/such/cat.png"
    assert "mask: no such file" in refusal(Path("no/such/cat.png"), name="mask")


def test_long_text_that_is_no_base64_is_not_thrown_back_in_full() -> None:
    assert len(refusal("x" * 100_000)) < 300
    assert len(refusal(base64.b64encode(b"no picture" * 1000).decode())) < 300


def test_folders_empty_files_other_files_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "secret.png").write_text("AIML_API_KEY=not-for-the-gateway")
    os.mkfifo(tmp_path / "pipe.png")
    assert "is a folder" in refusal(tmp_path)
    assert "is empty" in refusal(tmp_path / "empty.png")
    assert "not an image" in refusal(tmp_path / "secret.png")
    assert "not a regular file" in refusal(tmp_path / "pipe.png")
    assert "not a regular file" in refusal("/dev/zero")
    assert "cannot be read" in refusal("a\0b.png")
    assert "cannot be read" in refusal("~nobody-of-that-name/cat.png")


def test_addresses_that_the_gateway_cannot_open_are_refused() -> None:
    assert "s3://" in refusal("s3://bucket/cat.png")
    assert "cannot open" in refusal("ftp://example.com/cat.png")
    assert "URL" in refusal("https:///cat.png")
    assert "URL" in refusal("http://[::1/cat.png")
    assert "empty" in refusal("  ")
    assert "empty" in refusal(b"")


def test_what_is_no_image_at_all_is_refused_with_what_would_be() -> None:
    for value in (42, None, object(), {"a": 1}):
        assert "path, URL, bytes" in refusal(value)
    assert "binary mode" in refusal(io.StringIO("text"))


def test_an_object_that_breaks_is_refused_in_its_own_words() -> None:
    class Broken:
        def _repr_png_(self) -> bytes:
            raise RuntimeError("the kernel of this figure is gone")

    assert "the kernel of this figure is gone" in refusal(Broken())


def test_an_error_of_an_earlier_result_stays_what_it_is() -> None:
    class Result:
        def last_frame(self) -> Image.Image:
            raise KlingError("not finished yet")

    with pytest.raises(KlingError, match="not finished yet") as caught:
        media.image_url(Result())
    assert not isinstance(caught.value, InvalidRequestError)


def test_an_oversized_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(encoded("PNG"))
    os.truncate(path, 2**40)  # sparse: a terabyte would not fit into memory
    assert "at most 50 MB" in refusal(path)


# Limits

TURBO = "klingai/video-v3-standard-turbo-image-to-video"


def test_every_spelling_of_the_v3_turbo_models_has_the_documented_limits_and_no_other() -> None:
    with_limits = {model.id for model in catalog.models() if media.limits_for(model.id)}
    assert with_limits == {
        "klingai/video-v3-standard-turbo-image-to-video",
        "klingai/video-v3-turbo-pro-image-to-video",
    }
    assert media.limits_for("kling-video/v3/turbo/pro/image-to-video") == media.limits_for(TURBO)
    assert media.limits_for("a/model/of/next-year") is None


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ((300, 300), None),
        ((300, 299), "at least 300"),
        ((750, 300), None),
        ((751, 300), "1:2.5 to 2.5:1"),
        ((300, 751), "1:2.5 to 2.5:1"),
    ],
)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_pixels_and_ratio_are_held_against_the_documented_limits(
    form: str, size: tuple[int, int], says: str | None
) -> None:
    uri = media.image_url(encoded(form, size))
    plain = uri.partition(",")[2]
    for data in (uri, plain, base64.b64decode(plain)):
        if says is None:
            media.check_image(data, limits=media.limits_for(TURBO))
        else:
            with pytest.raises(InvalidRequestError, match=says):
                media.check_image(data, limits=media.limits_for(TURBO))
    media.check_image(uri)  # no limit is documented for the other models


def test_a_format_that_the_model_does_not_take_is_refused_by_content() -> None:
    limits = media.limits_for(TURBO)
    webp = base64.b64encode(encoded("WEBP", (400, 400))).decode()
    with pytest.raises(InvalidRequestError, match="JPEG or PNG"):
        media.check_image(f"data:image/png;base64,{webp}", limits=limits)
    jpeg = base64.b64encode(encoded("JPEG", (400, 400))).decode()
    media.check_image(f"data:image/jpg;base64,{jpeg}", limits=limits)


def test_more_than_fifty_megabytes_are_refused_for_every_model() -> None:
    large = encoded("PNG", (400, 400)) + bytes(50 * 2**20)
    for limits in (None, media.limits_for(TURBO)):
        with pytest.raises(InvalidRequestError, match="at most 50 MB"):
            media.check_image(large, limits=limits)


def test_urls_and_unreadable_headers_are_left_to_the_gateway() -> None:
    limits = media.limits_for(TURBO)
    media.check_image("https://example.com/small.gif", limits=limits)
    media.check_image("data:image/png;base64,iVBORw0KGgo", limits=limits)  # a header cut short
    media.check_image("data:image/svg+xml,%3Csvg/%3E")


def test_base64_that_nobody_can_decode_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="tail_image_url is not valid base64"):
        media.check_image("data:image/png;base64,iVB*RVx", name="tail_image_url")


@pytest.mark.parametrize("size", [(1, 1), (33, 77), (1920, 1080)])
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": b"Exif\0\0" + bytes(20_000)}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {"quality": 50}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*"}),
    ],
)
def test_the_size_is_read_from_the_header_without_pillow(
    form: str, options: dict[str, object], size: tuple[int, int]
) -> None:
    assert media.image_size(encoded(form, size, **options)) == size


def test_sizes_are_found_behind_tables_and_in_pictures_that_begin_at_the_top() -> None:
    jpeg = encoded("JPEG", (333, 222))
    table = b"\xff\xc4\x00\x0b" + bytes(9)  # Huffman tables bear a number among the frames'
    assert media.image_size(jpeg[:2] + table + b"\xff" + jpeg[2:]) == (333, 222)
    bmp = bytearray(encoded("BMP", (333, 222)))
    bmp[22:26] = (-222).to_bytes(4, "little", signed=True)
    assert media.image_size(bytes(bmp)) == (333, 222)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_a_header_cut_anywhere_gives_a_size_or_none_but_never_an_error(form: str) -> None:
    whole = encoded(form, (333, 222))
    for length in range(min(len(whole), 700)):
        assert media.image_size(whole[:length]) in (None, (333, 222))


# Frames out


def test_probe_reads_length_size_and_sound(clip: Path) -> None:
    facts = media.probe(clip)
    assert facts.duration == pytest.approx(2.0, abs=0.05)
    assert (facts.width, facts.height, facts.has_audio) == (640, 360, True)


@pytest.mark.parametrize(
    ("seconds", "number"), [(0, 0), (0.49, 11), (0.5, 12), (1, 24), (1.99, 47), (60, 47)]
)
def test_a_frame_is_the_picture_shown_at_that_second(
    clip: Path, seconds: float, number: int
) -> None:
    assert number_of(media.frame(clip, seconds)) == number


def test_the_last_frame_is_the_very_last_one(clip: Path) -> None:
    assert number_of(media.last_frame(str(clip))) == 47


def test_the_last_frame_of_a_long_video_is_found_without_decoding_it_all(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "g": "24"})
        video.width, video.height, video.pix_fmt = 64, 36, "yuv420p"
        for number in range(24 * 20):
            grey = np.full((36, 64, 3), number % 50 * 5, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(video.encode())
    decoded_pictures = 0
    real = frames._pictures_from

    def counted(*arguments: object) -> object:
        nonlocal decoded_pictures
        for picture in real(*arguments):  # type: ignore[arg-type]
            decoded_pictures += 1
            yield picture

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_pictures_from", counted)
        picture = media.last_frame(path)
    assert round(picture.convert("L").getpixel((30, 18)) / 5) == 479 % 50
    assert 0 < decoded_pictures <= 48


def test_a_poster_is_a_small_jpeg_that_is_never_blown_up(clip: Path) -> None:
    picture = Image.open(io.BytesIO(media.poster(clip)))
    assert (picture.format, picture.size) == ("JPEG", (480, 270))
    assert number_of(picture.resize((640, 360))) == 0
    assert Image.open(io.BytesIO(media.poster(clip, width=4000))).size == (640, 360)


def test_what_holds_no_video_is_refused_in_a_sentence(tmp_path: Path) -> None:
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"\0\0\0\x18ftypmp42" + os.urandom(2000))
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/never-asked.ts\n")
    os.mkfifo(tmp_path / "pipe.mp4")  # reading it would never end
    for path in (junk, playlist, tmp_path, tmp_path / "none.mp4", tmp_path / "pipe.mp4"):
        for look in (media.probe, media.last_frame, media.poster):
            with pytest.raises(InvalidRequestError):
                look(path)
    with pytest.raises(InvalidRequestError, match="0 seconds or later"):
        media.frame(junk, -1)


def test_a_missing_pyav_is_named_with_the_extra_that_brings_it(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InvalidRequestError, match="PyAV") as caught:
        media.poster(clip)
    assert "pip install 'kling-integrations[jupyter]'" in str(caught.value)


def test_nothing_heavy_is_imported_for_a_file_or_bytes(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(encoded("PNG", (400, 400)))
    program = (
        "import sys; from kling_integrations.core import media\n"
        "from kling_integrations.core.storage import download\n"
        f"uri = media.image_url({str(path)!r})\n"
        f"media.check_image(uri, limits=media.limits_for({TURBO!r}))\n"
        "heavy = {'PIL', 'numpy', 'matplotlib', 'av', 'requests', 'aiohttp'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_text_that_begins_like_a_bitmap_is_no_picture(tmp_path: Path) -> None:
    letter = tmp_path / "BMW.txt"
    letter.write_bytes(b"BMW is a maker of cars and not of pictures, whatever it begins with.")
    assert "not an image" in refusal(str(letter))
    assert media.image_type(encoded("BMP")) == "image/bmp"


@pytest.mark.parametrize("look", [media.probe, media.last_frame, media.poster])
@pytest.mark.parametrize(
    "odd",
    [
        AttributeError("'VideoStream' object has no attribute 'width'"),
        TypeError("unsupported operand type(s) for *: 'int' and 'NoneType'"),
        ZeroDivisionError("division by zero"),
        NotImplementedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_decoder_raises_about_a_file_is_one_kind_of_error(
    clip: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[Path], object], odd: Exception
) -> None:
    def fail(*_: object) -> None:
        raise odd

    monkeypatch.setattr(frames, "_duration", fail)
    with pytest.raises(InvalidRequestError, match="holds no readable video"):
        look(clip)


def test_a_stream_of_an_unknown_codec_is_no_readable_video(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    assert b"avc1" in data
    odd = tmp_path / "odd.mp4"
    odd.write_bytes(data.replace(b"avc1", b"zzz9"))
    for look in (media.probe, media.last_frame, media.poster):
        with pytest.raises(InvalidRequestError):
            look(odd)


def test_a_picture_that_pillow_cannot_write_is_one_kind_of_error(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "converted", lambda *_: object())
    with pytest.raises(InvalidRequestError):
        media.poster(clip)


def test_a_remote_path_that_is_a_path_as_well_is_read_by_its_own_method() -> None:
    class Stored(type(Path())):  # type: ignore[misc]
        """As universal_pathlib before 0.3 makes them, and Airflow 3.0 with it."""

        protocol = "s3"

        def read_bytes(self) -> bytes:
            return encoded("PNG")

    assert media.image_url(Stored("bucket/a.png")).startswith("data:image/png")
