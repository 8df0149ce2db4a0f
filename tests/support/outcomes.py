"""What became of a request that may go wrong."""

import requests


def outcome(ask):
    """The reply, or the exception's class."""
    try:
        return ask()
    except requests.RequestException as error:
        return type(error)
