"""Tokens and passwords are refused as options and hidden in what is printed or written."""

import pytest

from ladder_cli.run.credentials import holds_secret, redacted
from tests.malformed import TINY_RUN, run_command

HUB_TOKEN = "hf_" + "a1B2" * 8


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("cannot reach https://me:pass@example.org/x", "cannot reach https://***@example.org/x"),
        (f"401 for {HUB_TOKEN} at the hub", "401 for *** at the hub"),
        ("ghp_" + "x" * 36, "***"),
        ("key is wandb-key-of-the-environment", "key is ***"),
    ],
)
def test_credentials_are_hidden(text, hidden, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "wandb-key-of-the-environment")
    assert redacted(text) == hidden
    assert holds_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a@b",
        "model.revision=" + "0123456789abcdef" * 2 + "01234567",
        "TOKENIZERS_PARALLELISM=false",
    ],
)
def test_what_is_no_credential_stays(text, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "a-long-value-here")
    assert redacted(text) == text


def test_a_secret_reaches_no_file_of_a_run_and_no_line_of_its_output(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-token-of-no-known-shape")
    monkeypatch.chdir(tmp_path)
    status, out, err = run_command("train", ["output_dir=run", *TINY_RUN])
    assert status == 0, err
    status, _, refusal = run_command("train", ["output_dir=run", "data_dir=a-token-of-no-known-shape", *TINY_RUN])
    assert status == 2
    assert "option 'data_dir' holds a token or password" in refusal
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"a-token-of-no-known-shape" not in written + (out + err + refusal).encode()


def test_an_error_of_a_library_that_quotes_a_token_is_hidden(tmp_path, monkeypatch):
    from ladder_cli.data import prepare
    from ladder_cli.errors import UserError

    def quoting(*_: object) -> None:
        raise UserError(f"cannot load: https://u:{HUB_TOKEN}@hub said no")

    monkeypatch.setattr(prepare, "load_examples", quoting)
    status, _, error = run_command("train", [f"output_dir={tmp_path / 'run'}", *TINY_RUN])
    assert (status, error) == (2, "error: cannot load: https://***@hub said no\n")
