"""Text for a terminal: widths, columns, and what must not steer it."""

from kling_integrations.commands._text import clean, columns, cut, display_width


def test_wide_characters_count_twice():
    assert display_width("日本") == 4
    assert display_width("e\u0301") == 1
    assert cut("日本語", 4) == "日…"
    lines = columns([("日本", 1), ("ab", 22)], ("A", "B"))
    assert [display_width(line) for line in lines] == [8, 8, 8]


def test_control_characters_become_visible_and_emoji_stay_whole():
    assert clean("a\x1b[2Jb") == "a\N{REPLACEMENT CHARACTER}[2Jb"
    family = "👩\u200d👩\u200d👧"
    assert clean(family) == family
