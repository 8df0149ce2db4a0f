"""The URLs of videos are signed and dated."""

from urllib.parse import urlsplit


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
