"""The arguments of the commands: flags, their values, and a did-you-mean for a typing error."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from ..core import catalog, cost
from ..core.errors import InvalidRequestError, KlingError

if TYPE_CHECKING:
    from ..core.request import VideoRequest

_LONGEST_WAIT = 366 * 86_400.0  # seconds
_LONGEST = 300  # characters of the user's words in a message

ID_HELP = "an id, the beginning of one, or last; after -- when it starts with a dash"

# The names of flags that differ from the gateway's own name of the parameter.
_FLAG_NAMES = {"image_url": "image", "tail_image_url": "tail_image", "generate_audio": "audio"}


class UsageError(KlingError):
    """The line cannot be understood. Nothing was sent and nothing was paid."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError, with a did-you-mean, instead of exiting.

    ``-h`` prints the help and raises SystemExit(0), as usual. ``stray`` follows the error
    about words that no argument takes.
    """

    def __init__(self, *args: Any, stray: str = "", **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)
        self.stray = stray

    def error(self, message: str) -> NoReturn:
        text = _short(f"{message[:1].upper()}{message[1:]}")
        raise UsageError(f"{text.rstrip('.')}.", hint=self._see())

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Raises for unknown arguments: argparse parses a subcommand's through this method."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._reject(unknown)
        return parsed, unknown

    def _reject(self, unknown: list[str]) -> NoReturn:
        wrong = next((word.partition("=")[0] for word in unknown if word.startswith("-")), None)
        if wrong is None:
            words = _short(" ".join(unknown))
            raise UsageError(f"Unexpected: {words}. {self.stray}".strip(), hint=self._see())
        advice = _did_you_mean(wrong, self._option_string_actions)
        if not advice and re.match(r"-[^-]..", wrong):
            advice = f" If this is a value that starts with a dash, put -- before it: -- {wrong}"
        raise UsageError(f"{self.prog} has no flag {_short(wrong)}.{advice}", hint=self._see())

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Called by argparse for a value that must be one of several."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        advice = _did_you_mean(str(value), choices)
        if isinstance(action, argparse._SubParsersAction):
            if not advice and " " in str(value):
                advice = f" To make a video of it: {self.prog} generate '…'"
            word = _short(str(value))
            raise UsageError(f"{self.prog} has no command {word!r}.{advice}", hint=self._see())
        name = "/".join(action.option_strings) or action.metavar or action.dest
        given = _short(str(value))
        raise UsageError(
            f"{name} {given!r} is not possible: it takes {', '.join(choices)}.{advice}",
            hint=self._see(),
        )

    def _see(self) -> str:
        return f"See: {self.prog} -h"


def _short(text: str) -> str:
    """The user's own words, as far as they help to find the place."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = catalog.suggestions(word, known, most=1)
    return f" Did you mean {close[0]}?" if close else ""


def generation_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that describe a generation: of the commands, and of the notebook's cell."""
    add = parser.add_argument_group("what to generate").add_argument
    add("-m", "--model", metavar="MODEL", help=f"id or alias (default: {catalog.DEFAULT_MODEL})")
    add("-d", "--duration", metavar="S", type=_number, help="seconds of video, mostly 5 or 10")
    add("-a", "--aspect-ratio", metavar="R", help="16:9, 9:16 or 1:1")
    add("-n", "--negative-prompt", metavar="TEXT", help="what the video should not show")
    add("--cfg-scale", metavar="X", type=_number, help="0 to 1: how closely to keep to the prompt")
    add(
        "--audio",
        action=argparse.BooleanOptionalAction,
        help="with or without sound, where the model makes any (default there: with)",
    )
    add("-i", "--image", metavar="X", help="first frame: makes it image-to-video (path or URL)")
    add("--tag", metavar="WORD", help="a word of your own, for the history; it is not sent")
    add("--tail-image", metavar="X", help="last frame (path or URL)")
    add(
        "-p",
        "--param",
        metavar="KEY=JSON",
        type=_pair,
        action="append",
        default=[],
        help="any other parameter by the gateway's name, such as -p seed=7; repeatable",
    )


def request_from(
    args: argparse.Namespace,
    prompt: str | None,
    image: Any = None,
    tail_image: Any = None,
    **changes: Any,
) -> VideoRequest:
    """The request that flags and prompt describe.

    ``image`` and ``tail_image`` replace the values of the flags, for a caller that knows the
    objects they name; so do ``changes``, by the names of VideoRequest. Raises UsageError for a
    parameter that is given twice, and InvalidRequestError as VideoRequest does.
    """
    from ..core.request import VideoRequest

    given = parameters_from(args, prompt, image, tail_image)
    return VideoRequest(**{"model": catalog.DEFAULT_MODEL, **given, **changes})


def parameters_from(
    args: argparse.Namespace, prompt: str | None, image: Any = None, tail_image: Any = None
) -> dict[str, Any]:
    """What the flags say, by the names of VideoRequest; UsageError for what is said twice."""
    flags = {
        "model": args.model or None,
        "prompt": prompt,
        "duration": args.duration,
        "aspect_ratio": args.aspect_ratio,
        "negative_prompt": args.negative_prompt,
        "cfg_scale": args.cfg_scale,
        "audio": args.audio,
        "image": args.image if image is None else image,
        "tail_image": args.tail_image if tail_image is None else tail_image,
        "tag": args.tag,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    for key, value in args.param:
        name = _FLAG_NAMES.get(key, key)
        if name in given or name == "model":  # it has a default, and a flag
            raise UsageError(f"{name} is given twice: once as -p {key}=….")
        if name in ("image", "tail_image") and value is None:
            raise UsageError(f"-p {key}=null is no picture: leave it out.")
        if name == "extra" and not isinstance(value, dict):
            raise UsageError("-p extra=… takes a JSON object.")
        given[name] = value
    return given


def output_argument(parser: argparse._ActionsContainer) -> None:
    """``--out``: where the video goes."""
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="file or folder of the video (default: here, named after the prompt)",
    )
    overwrite_argument(parser)


def overwrite_argument(parser: argparse._ActionsContainer) -> None:
    """``--overwrite``: a file of the user's own may be replaced."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a file that was not made here (a paid video is kept aside in any case)",
    )


def timeout_argument(parser: argparse._ActionsContainer) -> None:
    """``--timeout``, in seconds once it is parsed."""
    from ..core.waiting import DEFAULT_TIMEOUT

    parser.add_argument(
        "--timeout",
        metavar="T",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        help="stop waiting after 90, 15m or 1h (default: 1h); the generation goes on",
    )


def add_command(
    commands: Any,
    name: str,
    run: Any,
    help: str,
    *,
    aliases: Sequence[str] = (),
    epilog: str | None = None,
    stray: str = "",
) -> Parser:
    """One more subcommand, run by ``run(args, console) -> exit code``.

    ``commands`` is what ``add_subparsers`` returned.
    """
    added: Parser = commands.add_parser(
        name,
        aliases=list(aliases),
        help=help,
        description=f"{help[:1].upper()}{help[1:]}.",
        epilog=epilog,
        stray=stray,
    )
    added.set_defaults(run=run)
    return added


def flag(args: argparse.Namespace, name: str) -> bool:
    """A flag that may not have been parsed at all, such as --json."""
    return bool(getattr(args, name, False))


def seconds(text: str) -> float:
    """``90``, ``90s``, ``15m`` or ``1h`` as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90, 15m or 1h")
    span = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    if span > _LONGEST_WAIT:
        raise argparse.ArgumentTypeError("it is longer than a year")
    return span


def day(text: str) -> date:
    """``2026-11-21``, ``today`` or ``yesterday``."""
    today = datetime.now().date()
    named = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        return named.get(text.strip().lower()) or date.fromisoformat(text.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a day such as 2026-11-21 or today"
        ) from None


def dollars(text: str) -> float:
    """``1.50`` or ``$1.50`` as a positive number."""
    try:
        return cost.limit(text.strip().removeprefix("$")) or 0.0
    except InvalidRequestError:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a sum in USD such as 1.50"
        ) from None


def count(text: str) -> int:
    """A whole number of at least 1, and at most nine digits."""
    if not re.fullmatch(r"\d{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count")
    return int(text)


def _number(text: str) -> Any:
    """Text as a number where it is one; the request says which values are possible."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _pair(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=JSON")
    try:
        return key.strip(), json.loads(value)
    except (ValueError, RecursionError):
        return key.strip(), value  # shot_type=intelligent needs no quotes
