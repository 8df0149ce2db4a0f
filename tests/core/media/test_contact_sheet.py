"""One picture of a batch."""

import io
from pathlib import Path

import pytest
from PIL import Image

from kling_integrations import InvalidRequestError
from kling_integrations.core.batch.sheet import make, tiles
from kling_integrations.core.media.contact_sheet import Tile, contact_sheet, encoded
from kling_integrations.sandbox.video import ready_made


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(ready_made._clip())
    return path


def test_each_row_has_a_tile_whatever_became_of_it(clip, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no")
    rows = [
        {"prompt": "a 🐼", "row": 1, "status": "completed", "path": str(clip)},
        {"prompt": "b", "row": 2, "status": "failed", "path": None},
        {"prompt": "c", "row": 3, "status": "completed", "path": str(tmp_path / "broken.mp4")},
    ]
    made = tiles(rows)
    assert [tile.label for tile in made] == ["1 a 🐼", "2 failed", "3 c"]
    sheet = contact_sheet(made, columns=3, width=600)
    assert sheet.width == 600
    assert len(sheet.crop((10, 10, 180, 80)).getcolors(20000)) > 20  # a picture
    assert encoded(sheet, "JPEG")[:2] == b"\xff\xd8"


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet.PNG", "sheet.jpeg"])
def test_a_sheet_has_the_format_of_its_name_and_replaces_its_like_alone(tmp_path, name):
    target, rows = tmp_path / "new" / name, [{"prompt": "a", "row": 1, "status": "failed"}]
    make(rows, target)
    begin = b"\x89PNG" if target.suffix == ".PNG" else b"\xff\xd8"
    assert target.read_bytes().startswith(begin)
    make(rows * 2, target)
    own = io.BytesIO()
    Image.new("RGB", (8, 8)).save(own, "PNG")
    for content in (own.getvalue(), b""):
        target.write_bytes(content)
        with pytest.raises(InvalidRequestError, match="not made here"):
            make(rows, target)
        assert target.read_bytes() == content
    make(rows, target, overwrite=True)
    assert target.read_bytes().startswith(begin)


def test_a_sheet_in_any_other_format_is_refused():
    with pytest.raises(InvalidRequestError, match=r"\.jpg or a \.png"):
        make([{"row": 1}], Path("sheet.pdf"))


def test_six_hundred_videos_are_a_picture_of_a_screens_width(clip):
    sheet = contact_sheet([Tile(str(n), clip if n < 3 else None) for n in range(700)])
    assert sheet.width == 1600
    assert sheet.height < 6000


def test_own_columns_do_not_hide_the_results():
    row = {"path": "mine", "status": "mine", "kling_path": "/x.mp4", "kling_status": "completed"}
    assert tiles([row])[0].path == Path("/x.mp4")


def test_nothing_is_no_sheet():
    with pytest.raises(InvalidRequestError, match="no videos"):
        contact_sheet([])
