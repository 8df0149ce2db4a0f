"""Pages that are read back, and words that try to become a part of them."""

from __future__ import annotations

from html.parser import HTMLParser

NASTY = [
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "</pre></details><style>*{display:none}</style>",
    "A 🦝 with \u202eright-to-left\u202c and עברית",
    "{braces} $dollars `ticks` \\slashes\\ &amp; & \n\n new lines",
    "long " * 500,
]


class Tags(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    @property
    def names(self) -> set[str]:
        return {tag for tag, _ in self.tags}


ALLOWED = {"figure", "figcaption", "video", "img", "div", "span", "b", "code", "details", "br",
           "summary", "pre", "progress"}  # fmt: skip
