"""What the client library raises, and S3 answers, as errors of ours."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from keepsake.exceptions import AccessDenied, ObjectNotFound, StorageUnavailable

if TYPE_CHECKING:
    from keepsake.exceptions import StorageError

_TRANSIENT = re.compile(
    r"SlowDown|Throttl|TooManyRequests|RequestTimeout$|InternalError|ServiceUnavailable|BandwidthLimit|RequestLimit"
)
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_REFUSED = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "InvalidSecurity",
    "AuthFailure",
    "InvalidClientTokenId",
)
NO_OBJECT = ("NoSuchKey", "404", "NotFound")
LOG_IN = "aws configure   or   aws sso login"


def s3_error(err: Exception, kind: type[StorageError], verb: str, key: str, url: str) -> StorageError:
    """Return whatever the client library raised as an error of ours, all in this one place.

    Args:
        err: What it raised.
        kind: What it is if nothing more is known.
        verb: What was tried.
        key: What with; empty if with the store as a whole.
        url: The store.
    """
    from botocore import exceptions as aws

    where: dict[str, Any] = {"url": url, "key": key or None}
    what = f"cannot {verb} {key} in {url}" if key else f"cannot {verb} {url}"
    if is_transient(err):
        return StorageUnavailable(f"{what}: unreachable for now ({_said(err)})", **where)
    if isinstance(err, aws.ClientError):
        return _refusal(err, kind, verb, key, what, where)
    if isinstance(err, aws.NoCredentialsError | aws.PartialCredentialsError | aws.ProfileNotFound):
        profile = os.environ.get("AWS_PROFILE", "default")
        looked = f'looked at: AWS_* variables, ~/.aws profile "{profile}", the role of the machine'
        return AccessDenied(f"no AWS credentials for {url}", **where, facts=[looked, _said(err)], hint=LOG_IN)
    if isinstance(
        err,
        aws.CredentialRetrievalError
        | aws.TokenRetrievalError
        | aws.SSOError
        | aws.RefreshWithMFAUnsupportedError
        | aws.UnauthorizedSSOTokenError,
    ):
        return AccessDenied(
            f"the AWS credentials for {url} have expired or cannot be renewed", **where, facts=[_said(err)], hint=LOG_IN
        )
    return kind(f"{what}: {_said(err)}", **where)


def _refusal(err: Any, kind: type[StorageError], verb: str, key: str, what: str, where: dict[str, Any]) -> StorageError:
    code, url = code_of(err), where["url"]
    bucket = url.removeprefix("s3://").partition("/")[0]
    if code == "NoSuchBucket":
        return kind(f"bucket {bucket} does not exist", **where, hint=f"keepsake init {url}")
    if code in NO_OBJECT and verb in ("read", "delete"):
        return ObjectNotFound(f"no object {key} in {url}", **where)
    if code in _EXPIRED:
        return AccessDenied(f"the AWS credentials for {url} have expired", **where, facts=[_said(err)], hint=LOG_IN)
    if code in _REFUSED:
        return AccessDenied(f"the AWS credentials for {url} were refused", **where, facts=[_said(err)], hint=LOG_IN)
    if code == "RequestTimeTooSkewed":
        return AccessDenied(f"{what}: the clock of this machine is wrong", **where, facts=[_said(err)])
    if _status(err) in (401, 403):
        return AccessDenied(f"{what}: the AWS credentials do not allow it", **where, facts=[_said(err)])
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"):
        return kind(f"{what}: the bucket is in another region", **where, facts=[_said(err)], hint="export AWS_REGION=REGION")
    return kind(f"{what}: {_said(err)}", **where)


def code_of(err: Any) -> str:
    """Return what S3 calls a refusal."""
    return str(err.response.get("Error", {}).get("Code", ""))


def _status(err: Any) -> int:
    return int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_forbidden(err: Exception) -> bool:
    """Tell whether credentials that are known do not allow something; a HEAD is answered without a code."""
    from botocore.exceptions import ClientError

    return isinstance(err, ClientError) and code_of(err) in ("AccessDenied", "403")


def _said(err: Exception) -> str:
    """Return what an error says in one line; no error of the library shows a secret, but some have several lines."""
    from botocore.exceptions import ClientError

    if isinstance(err, ClientError):
        message = err.response.get("Error", {}).get("Message") or ""
        return f"{code_of(err)} {message}".strip().partition("\n")[0][:300]
    # Of the address of a request the server is what people need; the rest is the key, which is said already.
    text = re.sub(r'"(https?://[^/"]+)[^"]*"', r"\1", str(err)).removesuffix(".")
    return f"{type(err).__name__}: {text}".partition("\n")[0][:300]


def is_transient(err: BaseException) -> bool:
    """Tell whether trying again may help."""
    from botocore import exceptions as aws
    from urllib3.exceptions import HTTPError

    if isinstance(err, aws.ClientError):
        return _status(err) in (408, 429, 500, 502, 503, 504) or _TRANSIENT.search(code_of(err)) is not None
    lost = (
        aws.ConnectionError,
        aws.HTTPClientError,
        aws.IncompleteReadError,
        aws.ResponseStreamingError,
        aws.FlexibleChecksumError,
        aws.ChecksumError,
        HTTPError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(err, lost)
