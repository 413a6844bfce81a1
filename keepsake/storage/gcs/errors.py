"""What the client library raises, and Google answers, as errors of ours; and what is tried again."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from keepsake.exceptions import AccessDenied, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from keepsake.exceptions import StorageError

T = TypeVar("T")

RETRY_FOR_S = 10.0
"""How long a request that may succeed later is made again. With one that hangs, a call that makes no progress ends within a minute."""

_TRANSIENT = (408, 429, 500, 502, 503, 504)
"""The answers that Google says to try again ("Retry strategy" of Cloud Storage)."""

_RATE_LIMITS = ("rateLimitExceeded", "userRateLimitExceeded")
"""Reasons of a refusal (403) that pass."""

LOG_IN = "gcloud auth application-default login"


def gcs_error(err: Exception, kind: type[StorageError], verb: str, key: str, url: str) -> StorageError:
    """Return whatever the client library raised as an error of ours, all in this one place.

    A missing object or bucket is not among it: the status of both is the same, so that the store has to be asked.

    Args:
        err: What it raised.
        kind: What it is if nothing more is known.
        verb: What was tried.
        key: What with; empty if with the store as a whole.
        url: The store.
    """
    from google.api_core.exceptions import RetryError
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, InvalidOperation

    if isinstance(err, RetryError):
        cause = err.cause
        return gcs_error(cause if isinstance(cause, Exception) else TimeoutError(), kind, verb, key, url)
    where: dict[str, Any] = {"url": url, "key": key or None}
    what = f"cannot {verb} {key} in {url}" if key else f"cannot {verb} {url}"
    if is_transient(err):
        return StorageUnavailable(f"{what}: unreachable for now ({said(err)})", **where)
    code = getattr(err, "code", None)
    if code == HTTPStatus.UNAUTHORIZED or isinstance(err, InvalidOperation):
        # The second is what credentials say that cannot be renewed, after such an answer.
        return AccessDenied(f"the Google Cloud credentials for {url} were refused", **where, hint=LOG_IN)
    if code == HTTPStatus.FORBIDDEN:
        return AccessDenied(f"{what}: the Google Cloud credentials do not allow it", **where, facts=[said(err)])
    if isinstance(err, DefaultCredentialsError):
        looked = "looked at: GOOGLE_APPLICATION_CREDENTIALS, the file that gcloud writes, the metadata server of the machine"
        return AccessDenied(f"no Google Cloud credentials for {url}", **where, facts=[looked, said(err)], hint=LOG_IN)
    if isinstance(err, GoogleAuthError):
        return AccessDenied(
            f"the Google Cloud credentials for {url} have expired or cannot be renewed", **where, facts=[said(err)], hint=LOG_IN
        )
    return kind(f"{what}: {said(err)}", **where)


def said(err: Exception) -> str:
    """Return what an error says in one line, without the address of a request: that of an upload is a secret."""
    from google.api_core.exceptions import GoogleAPICallError

    if isinstance(err, GoogleAPICallError):
        request = getattr(err.response, "request", None)
        said = err.message.removeprefix(f"{request.method} {request.url}: ") if request is not None else err.message
        return f"{err.code} {said.strip()}".partition("\n")[0][:300]
    if is_transient(err):
        return f"no connection: {type(err).__name__}"
    return f"{type(err).__name__}: {err.args[0] if err.args else ''}".partition("\n")[0][:300]


def is_transient(err: Exception) -> bool:
    """Tell whether trying again may help."""
    from google.api_core.exceptions import Forbidden, GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests import exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(err, Forbidden):
        return any(isinstance(reason, dict) and reason.get("reason") in _RATE_LIMITS for reason in err.errors)
    if isinstance(err, GoogleAPICallError):
        return err.code in _TRANSIENT
    if isinstance(err, GoogleAuthError):
        return isinstance(err, TransportError) or bool(err.retryable)
    lost = (
        exceptions.ConnectionError,
        exceptions.Timeout,
        exceptions.ChunkedEncodingError,
        HTTPError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(err, lost)


def retrying(work: Callable[[], T]) -> T:
    """Do what may succeed later again, for `RETRY_FOR_S` at most."""
    from google.api_core.retry import Retry

    result: T = Retry(predicate=is_transient, initial=0.1, maximum=8.0, multiplier=2.0, timeout=RETRY_FOR_S)(work)()
    return result
