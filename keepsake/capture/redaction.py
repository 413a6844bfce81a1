"""Keeping secrets out of the repository: in params, in the command line, in URLs and in messages.

A secret is known by the name it stands under, or by its own shape. Words that machine learning shares with passwords
(``pad_token``, ``max_tokens``) are not hidden. Which files are never taken is `keepsake.capture.files`' business.
"""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.values import Value

REDACTED = "[redacted]"
"""What stands in a record instead of a secret."""


def use_names(*, hidden: Sequence[str] = (), shown: Sequence[str] = ()) -> None:
    """Say, for all that this process records from now on, which names mean a secret beside those known here, and which do not.

    ``KEEPSAKE_REDACT`` hides further ones. What looks like a secret by itself is hidden under any name.

    Args:
        hidden: Patterns of names, or of dotted names, in any case, such as ``"*passwd*"``.
        shown: The same for names that are no secret; they go before all others.

    Example:
        >>> use_names(hidden=["internal_*"], shown=["login_token"])
        >>> redact_params({"internal_url": "http://x", "login_token": "[CLS]"})
        ({'internal_url': '[redacted]', 'login_token': '[CLS]'}, 1)
        >>> use_names()
    """
    global _names
    _names = _Names(tuple(hidden), tuple(shown))


def redact_params(params: dict[str, Value]) -> tuple[dict[str, Value], int]:
    """Return params without secrets, and how many values were hidden.

    Example:
        >>> redact_params({"lr": 0.1, "max_tokens": 512, "hub": {"hf_token": "abc"}})
        ({'lr': 0.1, 'max_tokens': 512, 'hub': {'hf_token': '[redacted]'}}, 1)
    """
    redaction = _Redaction()
    return redaction.of_dict(params, "", None), redaction.count


def redact_command(argv: Sequence[str]) -> tuple[list[str], int]:
    """Return an argument vector without secrets, and how many arguments were changed.

    Example:
        >>> redact_command(["train.py", "--lr", "0.1", "--api-key", "abc", "hub.token=xyz"])
        (['train.py', '--lr', '0.1', '--api-key', '[redacted]', 'hub.token=[redacted]'], 2)
    """
    result: list[str] = []
    hide: Literal["next", "all", None] = None
    for argument in argv:
        # A secret may begin with one dash.
        is_option = (_LONG_OR_SHORT_OPTION if hide == "next" else _OPTION).match(argument) is not None
        if hide is not None and not is_option:
            result.append(argument if argument.lower() in _NO_SECRETS else REDACTED)
            hide = "all" if hide == "all" else None
        else:
            hide = _what_follows(argument) if is_option else None
            result.append(_redact_argument(argument))
    return result, sum(before != after for before, after in zip(argv, result, strict=True))


def redact_url(url: str) -> str:
    """Return a URL without passwords and tokens.

    Example:
        >>> redact_url("https://ana:hunter2@example.com/repository?token=abc&page=2")
        'https://ana:[redacted]@example.com/repository?token=[redacted]&page=2'
    """
    return redact_text(url)


def redact_text(text: str) -> str:
    """Return a text without anything in it that looks like a secret.

    Example:
        >>> redact_text("cannot reach https://ana:hunter2@example.com: 403")
        'cannot reach https://ana:[redacted]@example.com: 403'
    """
    text = _USER_AND_PASSWORD.sub(rf"\g<before>{REDACTED}@", text)
    text = _TOKEN_AS_USER.sub(rf"\g<before>{REDACTED}@", text)
    text = _QUERY.sub(_redact_query, text)
    text = _AUTHORIZATION.sub(rf"\g<before>{REDACTED}", text)
    text = _TOKEN_SHAPES.sub(REDACTED, text)
    return _ASSIGNMENT.sub(_redact_assignment, text)


# --- params -----------------------------------------------------------------------------------------------------------


class _Redaction:
    """Goes through nested values and counts what it hides."""

    def __init__(self) -> None:
        self.count = 0

    def of_dict(self, values: dict[str, Value], name: str, inherited: _Kind | None) -> dict[str, Value]:
        return {
            redact_text(key): self._of(value, f"{name}{key}", _kind_below(inherited, key, f"{name}{key}"))
            for key, value in values.items()
        }

    def _of(self, value: Value, name: str, kind: _Kind | None) -> Value:
        if isinstance(value, dict):
            return self.of_dict(value, f"{name}.", kind)
        if isinstance(value, list):
            return self._of_list(value, name, kind)
        hidden = _redact_value(value, kind)
        self.count += hidden is not value and hidden != value  # NaN differs from itself
        return hidden

    def _of_list(self, values: list[Value], name: str, kind: _Kind | None) -> list[Value]:
        texts = [value for value in values if isinstance(value, str)]
        if kind is None and texts and len(texts) == len(values):
            # It may be an argument vector, in which an option says what the next one is.
            redacted, count = redact_command(texts)
            self.count += count
            return list(redacted)
        return [self._of(value, name, kind) for value in values]


def _redact_value(value: Value, kind: _Kind | None) -> Value:
    if isinstance(value, str):
        if kind is None:
            return redact_text(value)
        return value if value.lower() in _NO_SECRETS else REDACTED
    # A password may be written without quotes; a count of tokens is no secret.
    if kind == "strong" and isinstance(value, int) and not isinstance(value, bool):
        return REDACTED
    return value


_NO_SECRETS = frozenset({"", "true", "false", "none", "null", "yes", "no", REDACTED})
"""Texts that are no secrets even where one is expected."""


# --- arguments --------------------------------------------------------------------------------------------------------

_OPTION = re.compile(r"--?[A-Za-z]")
_LONG_OR_SHORT_OPTION = re.compile(r"--[A-Za-z]|-[A-Za-z]$")
_NAMED_VALUE = re.compile(r"(?P<name>[-+~]*[A-Za-z_@][\w.@/:-]*?)=(?P<value>.+)", re.DOTALL)


def _what_follows(option: str) -> Literal["next", "all", None]:
    """Tell whether the arguments after an option are secrets."""
    name = option.lstrip("-")
    if "=" in option or _kind(name) is None:
        return None
    return "all" if name.lower().endswith("s") else "next"


def _redact_argument(argument: str) -> str:
    named = _NAMED_VALUE.fullmatch(argument)
    if named is not None and _kind(named["name"]) is not None:
        value = named["value"]
        return argument if value.lower() in _NO_SECRETS else f"{named['name']}={REDACTED}"
    return redact_text(argument)


# --- names ------------------------------------------------------------------------------------------------------------

_Kind = Literal["strong", "token"]
"""How a name tells a secret: for sure, or by the word "token", which machine learning uses otherwise too."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SECRET_WORDS = _words(
    "password passwords passwd passphrase passcode secret secrets credential credentials authorization apikey apikeys"
    " privatekey secretkey accesskey"
)
_SECRET_ENDINGS = ("password", "passwd", "passphrase", "apikey", "secretkey")
_BEFORE_KEY = _words(
    "api private access secret account auth ssh gpg encryption signing license deploy wandb openai anthropic comet neptune"
    " mlflow clearml hf hub huggingface github gitlab azure aws gcp google slack sas subscription"
)
_BEFORE_PASS = _words("user db database smtp mysql postgres redis ftp admin root")
_BEFORE_TOKEN = _words(
    "access auth oauth api refresh bearer secret session security hf hub huggingface github gitlab gh wandb openai comet"
    " neptune mlflow clearml slack azure aws gcp google bot deploy personal login user sas jwt csrf"
)
_ML_BEFORE_TOKEN = _words(
    "pad padding bos eos unk unknown mask cls sep separator begin beginning start end stop special additional next last first"
    " previous num n max min mean avg average total per each every by with no new image img audio video vision text speech class"
    " dist distill distillation register query key value blank prefix suffix split word subword byte char prompt response think"
    " decoder encoder pooled cross mem memory ignore target source label boi eoi eot latent patch context eod"
)


def _kind(name: str, dotted: str = "") -> _Kind | None:
    """Tell whether what stands under a name is a secret."""
    if _matches(name, dotted, _names.shown):
        return None
    words = [word.lower() for word in _WORDS.findall(name)]
    pairs = list(itertools.pairwise(words))
    if any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS) for word in words):
        return "strong"
    if any(
        (second in ("key", "keys") and first in _BEFORE_KEY)
        or (second == "pass" and first in _BEFORE_PASS)
        or second == "pwd"
        or (first, second) == ("connection", "string")
        for first, second in pairs
    ):
        return "strong"
    if _is_asked_for(name, dotted):
        return "strong"
    return "token" if _is_token(words, pairs) else None


_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def _is_token(words: list[str], pairs: list[tuple[str, str]]) -> bool:
    if any(second in ("token", "tokens") and first in _BEFORE_TOKEN for first, second in pairs):
        return True
    if words and words[-1] != "token":
        return words[-1].endswith("token") and words[-1].removesuffix("token") in _BEFORE_TOKEN
    return words == ["token"] or (len(words) > 1 and words[-2] not in _ML_BEFORE_TOKEN)


class _Names(NamedTuple):
    hidden: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


_names = _Names()


def _is_asked_for(name: str, dotted: str) -> bool:
    """Tell whether somebody wants it hidden."""
    patterns = os.environ.get("KEEPSAKE_REDACT", "").split(",")
    return _matches(name, dotted, (*patterns, *_names.hidden))


def _matches(name: str, dotted: str, patterns: Sequence[str]) -> bool:
    if not patterns:
        return False
    names = {name.lower(), name.lower().lstrip("-+~").replace("-", "_"), dotted.lower()}
    wanted = [pattern.strip().lower() for pattern in patterns]
    return any(pattern and fnmatch.fnmatchcase(candidate, pattern) for pattern in wanted for candidate in names)


def _kind_below(inherited: _Kind | None, name: str, dotted: str) -> _Kind | None:
    """Tell whether what stands under a name is a secret, by that name and those above it."""
    return None if _matches(name, dotted, _names.shown) else _strongest(inherited, _kind(name, dotted))


def _strongest(one: _Kind | None, other: _Kind | None) -> _Kind | None:
    return "strong" if "strong" in (one, other) else one or other


# --- shapes -----------------------------------------------------------------------------------------------------------
# Repetitions are bounded where a text could otherwise make the time quadratic.

_SCHEME = r"(?<![\w+.-])[A-Za-z][\w+.-]{0,30}://"

_USER_AND_PASSWORD = re.compile(
    # A password should not contain "/"; where it does, the text up to the next "@" is taken, unless it begins like a port.
    rf"""(?P<before>{_SCHEME}[^/\s:@"'<>]{{0,200}}:)(?!\[redacted\]@)(?:[^/\s"'<>]{{1,500}}@|(?!\d{{1,5}}/)[^\s@"'<>]{{1,500}}@)"""
)
_TOKEN_AS_USER = re.compile(r"""(?P<before>(?<![\w+.-])https?://)(?!\[redacted\]@)[^/\s:@"'<>]{1,500}@""", re.IGNORECASE)

_QUERY = re.compile(r"""(?P<before>[?&;#](?P<name>[\w.%-]{1,100})=)(?P<value>[^&;#\s"'<>]+)""")
_QUERY_SECRETS = _words(
    "key sig signature auth pass pwd code x-amz-signature x-amz-credential x-goog-signature x-goog-credential"
)

_AUTHORIZATION = re.compile(r"(?P<before>\b(?:bearer|basic)\s+)(?=[^\s]*[\d=])[\w.~+/=-]{8,}", re.IGNORECASE)

_TOKEN_SHAPES = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:
        hf_[A-Za-z0-9]{16,} | api_org_[A-Za-z0-9]{16,}              # Hugging Face
        | (?:AKIA|ASIA)[0-9A-Z]{16}                                 # AWS
        | gh[opusr]_[A-Za-z0-9]{16,} | github_pat_\w{16,}           # GitHub
        | glpat-[\w-]{16,}                                          # GitLab
        | sk-(?=[\w-]{0,80}\d)[\w-]{16,} | sk_(?:live|test)_\w{16,} # OpenAI, Anthropic, Stripe
        | xox[abeoprs]-[\w-]{10,}                                   # Slack
        | AIza[\w-]{30,} | ya29\.[\w-]{20,}                         # Google
        | eyJ[\w-]{5,}\.eyJ[\w-]{5,}\.[\w-]*                        # JSON web tokens
        | wandb_v1_\w{16,} | r8_[A-Za-z0-9]{30,} | npm_[A-Za-z0-9]{30,} | pypi-[\w-]{50,} | SG\.[\w-]{16,}\.[\w-]{16,}
        | -----BEGIN\ [A-Z ]{0,40}PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]{0,40}PRIVATE\ KEY-----|\Z)
        )[\w-]*
    """,
    re.VERBOSE | re.DOTALL,
)

_ASSIGNMENT = re.compile(
    r"""(?<![\w.-])(?P<name>-{0,2}[A-Za-z_][\w.-]{0,100})(?P<quote>["']?)(?P<sign>\s{0,3}[=:]\s{0,3})"""
    r"""(?P<value>"[^"]*"|'[^']*'|(?i:bearer|basic)\s+[^\s"',;]+|[^\s"',;&)}\]]+)"""
)


def _redact_query(match: re.Match[str]) -> str:
    is_secret = match["name"].lower() in _QUERY_SECRETS or _kind(match["name"]) is not None
    return f"{match['before']}{REDACTED}" if is_secret and not _is_harmless(match["value"]) else match[0]


def _redact_assignment(match: re.Match[str]) -> str:
    kind = _kind(match["name"])
    # "unexpected token: foo" is a message, "token": "foo" is not.
    if kind is None or (kind == "token" and ":" in match["sign"] and not match["quote"]):
        return match[0]
    value = match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    if _is_harmless(value.strip("\"'")):
        return match[0]
    return f"{match['name']}{match['quote']}{match['sign']}{quote}{REDACTED}{quote}"


def _is_harmless(value: str) -> bool:
    return value.lower() in _NO_SECRETS or value.startswith(REDACTED[:-1])
