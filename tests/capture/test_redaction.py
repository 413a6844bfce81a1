"""Secrets do not reach a record, and what machine learning calls tokens and keys does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keepsake.capture.redaction import REDACTED, redact_command, redact_params, redact_text, redact_url, use_names

SECRET_NAMES = [
    "password",
    "PASSWORD",
    "db_password",
    "dbPassword",
    "user_password2",
    "dbpassword",
    "passwd",
    "passphrase",
    "db_pass",
    "mysql_pwd",
    "secret",
    "client_secret",
    "AWS_SECRET_ACCESS_KEY",
    "aws_access_key_id",
    "credentials",
    "api_key",
    "api-key",
    "apiKey",
    "APIKey",
    "apikey",
    "OPENAI_API_KEY",
    "wandb_key",
    "private_key",
    "ssh.private-key",
    "connection_string",
    "token",
    "TOKEN",
    "hf_token",
    "HF_TOKEN",
    "hftoken",
    "hub_token",
    "githubToken",
    "access_token",
    "accessTokenValue",
    "api_tokens",
    "my_token",
    "Authorization",
]

HARMLESS_NAMES = [
    "num_tokens",
    "max_tokens",
    "max_new_tokens",
    "max_token_length",
    "pad_token",
    "pad_token_id",
    "padToken",
    "bos_token",
    "eos_token",
    "unk_token",
    "mask_token",
    "use_cls_token",
    "sep_token",
    "image_token",
    "token_dim",
    "token_type_vocab_size",
    "token_embedding",
    "tokens",
    "tokens_per_batch",
    "additional_special_tokens",
    "per_token_loss",
    "tokenizer",
    "tokenizer_name",
    "tokenized",
    "key",
    "key_dim",
    "num_key_value_heads",
    "d_key",
    "sort_key",
    "keyword",
    "monkey",
    "secretary",
    "forward_pass",
    "num_passes",
    "pwd",
    "author",
    "lr",
]

SHAPES = [
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
    "glpat-ABCdefGHIjklMNOpqrST",
    "sk-proj-abcdefghijklmnop1234",
    "sk-ant-api03-abcdefghijklmnop",
    "xoxb-123456789012-abcdefghij",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
]


class TestParams:
    @pytest.mark.parametrize("name", SECRET_NAMES)
    def test_a_secret_name_hides_its_text(self, name: str) -> None:
        assert redact_params({name: "hunter2", "lr": 0.1}) == ({name: REDACTED, "lr": 0.1}, 1)
        assert redact_params({"a": {"b": [{name: "hunter2"}]}}) == ({"a": {"b": [{name: REDACTED}]}}, 1)

    @pytest.mark.parametrize("name", HARMLESS_NAMES)
    @pytest.mark.parametrize("value", ["<pad>", 512, 0.5, None, True, ["<a>", "<b>"]])
    def test_a_harmless_name_hides_nothing(self, name: str, value: Any) -> None:
        assert redact_params({name: value}) == ({name: value}, 0)

    @pytest.mark.parametrize("value", [None, True, False, "", "true", "None"])
    def test_where_there_is_no_secret_nothing_is_hidden(self, value: Any) -> None:
        params = {"use_auth_token": value, "password": value}
        assert redact_params(params) == (params, 0)

    def test_numbers_are_hidden_only_where_they_can_be_secrets(self) -> None:
        assert redact_params({"password": 1234, "token": 1234, "token_count": 3}) == (
            {"password": REDACTED, "token": 1234, "token_count": 3},
            1,
        )

    def test_all_below_a_secret_name_is_hidden(self) -> None:
        params: dict[str, Any] = {"credentials": {"user": "ana", "keys": ["a", "b"], "active": True}}
        assert redact_params(params) == ({"credentials": {"user": REDACTED, "keys": [REDACTED, REDACTED], "active": True}}, 3)

    def test_secrets_in_texts_are_hidden_too(self) -> None:
        params: dict[str, Any] = {"data": "https://ana:hunter2@host/x", "note": "uses hf_AbCdEfGhIjKlMnOpQrStUvWxYz01"}
        assert redact_params(params) == ({"data": "https://ana:[redacted]@host/x", "note": "uses [redacted]"}, 2)

    def test_an_argument_vector_among_params_is_read_as_one(self) -> None:
        assert redact_params({"argv": ["--api-key", "abc", "--lr", "1"]}) == ({"argv": ["--api-key", REDACTED, "--lr", "1"]}, 1)

    def test_patterns_of_the_users_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        params: dict[str, Any] = {"license": "abc", "customer": {"name": "Ana", "size": 3}, "lr": 0.1}
        monkeypatch.setenv("KEEPSAKE_REDACT", "licen*, customer.name ,")
        assert redact_params(params)[0] == {"license": REDACTED, "customer": {"name": REDACTED, "size": 3}, "lr": 0.1}
        assert redact_command(["--license=abc", "--license", "abc", "LICENSE=abc", "customer.name=Ana"])[1] == 4

    def test_names_that_a_configuration_hides_and_shows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEEPSAKE_REDACT", "other")
        use_names(hidden=["Internal_*", "db.host"], shown=["login_token", "credentials.region", "internal_port"])
        params: dict[str, Any] = {
            "internal_url": "x",
            "internal_port": "y",
            "db": {"host": "h", "hostname": "n"},
            "login_token": "t",
            "credentials": {"region": "eu", "key": "k"},
            "other": "o",
        }
        hidden = REDACTED
        assert redact_params(params) == (
            {
                "internal_url": hidden,
                "internal_port": "y",
                "db": {"host": hidden, "hostname": "n"},
                "login_token": "t",
                "credentials": {"region": "eu", "key": hidden},
                "other": hidden,
            },
            4,
        )
        assert redact_command(["train.py", "--internal-url", "x", "--login-token=t"])[0] == [
            "train.py",
            "--internal-url",
            hidden,
            "--login-token=t",
        ]

    def test_what_looks_like_a_secret_is_hidden_under_any_name(self) -> None:
        use_names(shown=["*"])
        assert redact_params({"login_token": "hf_" + "a1B2" * 8}) == ({"login_token": REDACTED}, 1)

    def test_what_is_given_is_not_changed(self) -> None:
        params: dict[str, Any] = {"token": "abc", "a": {"password": "x"}}
        redact_params(params)
        assert params == {"token": "abc", "a": {"password": "x"}}


class TestCommand:
    @pytest.mark.parametrize(
        ("argv", "expected"),
        [
            (["train.py", "--lr", "0.1", "--max-tokens", "512"], ["train.py", "--lr", "0.1", "--max-tokens", "512"]),
            (["--api-key", "abc", "--lr", "1"], ["--api-key", REDACTED, "--lr", "1"]),
            (["--api-key=abc"], [f"--api-key={REDACTED}"]),
            (["-api_key", "abc"], ["-api_key", REDACTED]),
            (["--wandb-key", "0123456789abcdef0123456789abcdef01234567", "b"], ["--wandb-key", REDACTED, "b"]),
            (["--password", "-abc"], ["--password", REDACTED]),
            (["--use-auth-token", "--lr", "3"], ["--use-auth-token", "--lr", "3"]),
            (["--use-auth-token", "-v"], ["--use-auth-token", "-v"]),
            (["--use-auth-token", "true", "x"], ["--use-auth-token", "true", "x"]),
            (["--api-keys", "a", "b", "--lr", "1"], ["--api-keys", REDACTED, REDACTED, "--lr", "1"]),
            (["WANDB_API_KEY=abc", "python"], [f"WANDB_API_KEY={REDACTED}", "python"]),
            (["+hub.token=abc", "model.pad_token=<p>"], [f"+hub.token={REDACTED}", "model.pad_token=<p>"]),
            (["--env", "HF_TOKEN=abc"], ["--env", f"HF_TOKEN={REDACTED}"]),
            (["--config", '{"token": "abc", "lr": 1}'], ["--config", '{"token": "[redacted]", "lr": 1}']),
            (["-H", "Authorization: Bearer abcdefgh1"], ["-H", "Authorization: [redacted]"]),
            (["--data", "s3://bucket/a=b"], ["--data", "s3://bucket/a=b"]),
            (["--url", "https://ana:hunter2@host"], ["--url", "https://ana:[redacted]@host"]),
            (["-p", "8080"], ["-p", "8080"]),
            (["--token"], ["--token"]),
            (["--token="], ["--token="]),
            (["--password", ""], ["--password", ""]),
            ([], []),
        ],
    )
    def test_arguments(self, argv: list[str], expected: list[str]) -> None:
        assert redact_command(argv) == (expected, sum(a != b for a, b in zip(argv, expected, strict=True)))


class TestText:
    @pytest.mark.parametrize("secret", SHAPES)
    def test_known_shapes_are_hidden_anywhere(self, secret: str) -> None:
        for text in (secret, f"cannot log in with {secret}, sorry", f"https://{secret}@github.com/x", f'"{secret}"'):
            assert secret not in redact_text(text)
            assert REDACTED in redact_text(text)

    @pytest.mark.parametrize(
        "text",
        [
            "0123456789abcdef0123456789abcdef01234567",  # a commit
            "sk-learn-contrib-something-long",
            "task-12345678901234567890",
            "unexpected token: foo",
            "git@github.com:acme/hotdog.git",
            "ssh://git@github.com/acme/hotdog",
            "https://host:8080/a@b",
            "s3://bucket/path?versionId=3",
            "https://example.com/search?q=tokens&page=2",
            "loss = 0.5, key = val",
            "basic training of models",
        ],
    )
    def test_what_is_no_secret_stays(self, text: str) -> None:
        assert redact_text(text) == text

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("https://ana:p@ss:word@host/x@y", "https://ana:[redacted]@host/x@y"),
            ("postgres://ana:p/w@host/db", "postgres://ana:[redacted]@host/db"),
            ("https://:hunter2@host", "https://:[redacted]@host"),
            ("https://abcdef@host/x", "https://[redacted]@host/x"),
            ("s3://key:secret@bucket/root", "s3://key:[redacted]@bucket/root"),
            (
                "https://host/x?a=1&token=abc&b=2#access_token=xyz",
                "https://host/x?a=1&token=[redacted]&b=2#access_token=[redacted]",
            ),
            ("https://host/x?X-Amz-Signature=abc&key=def", "https://host/x?X-Amz-Signature=[redacted]&key=[redacted]"),
            ("file:///home/ana/x", "file:///home/ana/x"),
        ],
    )
    def test_urls(self, url: str, expected: str) -> None:
        assert redact_url(url) == expected
        assert redact_text(f"error at {url} (403)") == f"error at {expected} (403)"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("login(password='my secret', user='ana')", "login(password='[redacted]', user='ana')"),
            ("api_key=abc;lr=1", "api_key=[redacted];lr=1"),
            ("password: hunter2", "password: [redacted]"),
            ('{"hf_token": "abc", "max_tokens": "5"}', '{"hf_token": "[redacted]", "max_tokens": "5"}'),
            ("Authorization: Bearer abcdef123456", "Authorization: [redacted]"),
            ("header was Bearer abcdef123456", "header was Bearer [redacted]"),
        ],
    )
    def test_assignments(self, text: str, expected: str) -> None:
        assert redact_text(text) == expected

    def test_long_texts_take_no_longer_than_their_length(self) -> None:
        """Each of these is quadratic, or worse, for a careless expression; then this test would not end."""
        for piece in (
            "a://b:",
            "a=",
            "a.",
            "https://",
            "?a=",
            '"',
            "eyJ",
            "sk-",
            "password=",
            "-----BEGIN PRIVATE KEY",
            "bearer ",
            "@:",
        ):
            redact_text(piece * (300_000 // len(piece)))


SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=30).map(lambda text: f"Qz{text}")


@given(secret=SECRETS, name=st.sampled_from(SECRET_NAMES), data=st.data())
def test_a_secret_under_a_secret_name_never_comes_out(secret: str, name: str, data: st.DataObject) -> None:
    place: Any = data.draw(st.sampled_from([secret, [secret], [[secret]], {"inner": secret}, [{"a": ["b", secret]}]]))
    params: dict[str, Any] = {name: place}
    for _ in range(data.draw(st.integers(0, 3))):
        params = {data.draw(st.sampled_from(["model", "max_tokens", "hub"])): data.draw(st.sampled_from([params, [params]]))}
    redacted, count = redact_params(params)
    assert secret not in str(redacted)
    assert count >= 1


@given(
    secret=SECRETS,
    name=st.sampled_from([name for name in SECRET_NAMES if name.isascii() and "." not in name]),
    before=st.lists(st.sampled_from(["train.py", "--lr", "0.1", "-v", "--max-tokens=5", "a=b"])),
    after=st.lists(st.sampled_from(["--epochs", "3", "x"])),
    start=st.sampled_from(["--", "", "+model."]),
    in_one=st.booleans(),
)
def test_a_secret_argument_never_comes_out(
    secret: str, name: str, before: list[str], after: list[str], start: str, in_one: bool
) -> None:
    assume(in_one or start == "--")
    arguments = [f"{start}{name}={secret}"] if in_one else [f"--{name}", secret]
    redacted, count = redact_command([*before, *arguments, *after])
    assert secret not in " ".join(redacted)
    assert count >= 1
    assert redacted[: len(before)] == before


@given(
    st.text()
    | st.lists(st.sampled_from([*SHAPES, "https://a:b@c", "token=", "password: ", "x", " ", REDACTED, '"'])).map("".join)
)
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once


@given(
    st.dictionaries(
        st.sampled_from([*HARMLESS_NAMES]), st.none() | st.integers() | st.floats(allow_nan=False) | st.text("abc <>")
    )
)
def test_harmless_params_stay_as_they_are(params: dict[str, Any]) -> None:
    assert redact_params(params) == (params, 0)


def test_nan_is_no_secret() -> None:
    params: dict[str, object] = {"a": float("nan"), "b": [float("inf")]}
    assert redact_params(params) == (params, 0)  # type: ignore[arg-type]
