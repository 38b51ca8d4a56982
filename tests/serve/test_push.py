"""An export on its way to the hub: its card, what goes along, and what is refused before any work. No hub is asked."""

import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from ladder_cli import UserError, finetune
from ladder_cli.errors import RunFailed
from ladder_cli.run.directory import write_json
from ladder_cli.serve import push as push_module
from ladder_cli.serve.push import Push, files_of, refuse_secrets

QUICK = (
    "hardware=cpu", "data.train_samples=32", "data.validation_samples=8", "train.max_steps=2", "data.cache=false",
)  # fmt: skip
SCORE = {"pass_at_1": 0.25, "ci95": [0.125, 0.4375], "n_problems": 48, "n_runs": 1}


def export(*words, **variables):
    command = [sys.executable, "-m", "ladder_cli.cli.export", *words, "hardware=cpu"]
    import os

    clean = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=clean | variables)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    home = tmp_path_factory.mktemp("runs")
    made = {name: finetune(f"method={name}", *QUICK, f"output_dir={home / name}").path for name in ("ladder", "qlora")}
    (made["ladder"] / "eval").mkdir()
    write_json(made["ladder"] / "eval" / "summary.json", {"arithmetic": SCORE})
    return made


def test_a_dry_run_shows_card_and_files_and_asks_nobody(runs, tmp_path):
    words = (f"run={runs['ladder']}", "format=vllm", f"output={tmp_path / 'out'}", "push=me/mine", "push_dry_run=true")
    done = export(*words, HF_ENDPOINT="http://127.0.0.1:1", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert card in done.stdout
    for name, size in files_of(tmp_path / "out"):
        assert f"{size:>15,} bytes  {name}" in done.stdout
    assert "| arithmetic | 0.2500 | 0.1250 to 0.4375 | 48 | 1 |" in card
    assert 'AutoModelForCausalLM.from_pretrained("me/mine")' in card
    assert "`ladder` on `tiny`, trained on `arithmetic`" in card
    data = ModelCard(card).data
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("arithmetic", "pass@1", 0.25)
    assert data.tags == ["ladder-side-tuning", "ladder"]
    # Nothing that goes to others names a folder of this machine.
    for path in (tmp_path / "out").glob("*.json"):
        assert str(tmp_path) not in path.read_text(), path.name
        assert "/assets/" not in path.read_text(), path.name


def test_every_export_has_a_card_and_without_scores_it_says_so(runs, tmp_path):
    done = export(f"run={runs['qlora']}", "format=merged", f"output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The run has no evaluation." in card
    assert 'AutoModelForCausalLM.from_pretrained(".")' in card
    assert ModelCard(card).data.eval_results is None


@pytest.mark.parametrize(
    ("words", "variables", "line"),
    [
        (["push=me"], {}, "push=me names no repository: give push=OWNER/NAME."),
        (["push=me/a b"], {}, "push=me/a b names no repository"),
        (["push_private=false"], {}, "nothing reads it without push=OWNER/NAME"),
        (["push=me/mine"], {"HF_HUB_OFFLINE": "1"}, "the hub is not asked (HF_HUB_OFFLINE=1): leave push out"),
        (["push=me/mine"], {"HF_ENDPOINT": "http://127.0.0.1:1"}, "http://127.0.0.1:1 does not answer: leave push out"),
        (["push=me/mine", "push_dry_run=true"], {}, "an adapter for peft names its backbone"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(runs, words, variables, line, tmp_path):
    done = export(f"run={runs['qlora']}", "format=peft", f"output={tmp_path / 'out'}", *words, **variables)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_token_it_is_said_how_to_get_one(monkeypatch):
    monkeypatch.setattr(push_module.hub, "settle_offline", lambda: None)
    monkeypatch.setattr(push_module.hub, "offline", lambda: False)
    monkeypatch.setattr(push_module, "get_token", lambda: None)
    with pytest.raises(UserError, match="needs a token of the hub: hf auth login"):
        Push("me/mine", private=True).refuse_mistakes(dry=False)


def test_a_credential_never_goes_along(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    refuse_secrets(tmp_path)
    (tmp_path / "prompt.json").write_text('{"instruction": "hf_' + "a" * 30 + '"}')
    with pytest.raises(UserError, match=r"prompt\.json holds a token or a password") as refused:
        refuse_secrets(tmp_path)
    assert "aaaa" not in str(refused.value)


class Client:
    """In place of the hub's client: notes what it is asked, and may be refused."""

    asked: list = []
    refusal = None

    def create_repo(self, name, **options):
        self.asked.append((name, options))

    def upload_folder(self, **options):
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(options)
        return type("Commit", (), {"commit_url": "https://hub/me/mine/commit/1"})


def test_a_folder_goes_as_one_commit_and_stays_where_the_hub_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(push_module, "HfApi", Client)
    assert Push("me/mine", private=True).send(tmp_path) == "https://hub/me/mine/commit/1"
    made, sent = Client.asked
    assert made == ("me/mine", {"private": True, "exist_ok": True})
    assert (sent["repo_id"], sent["folder_path"]) == ("me/mine", tmp_path)
    monkeypatch.setattr(Client, "refusal", ConnectionError("no route"))
    with pytest.raises(RunFailed, match=r"is written, and was not pushed to me/mine \(no route\): hf upload me/mine"):
        Push("me/mine", private=True).send(tmp_path)
    assert tmp_path.is_dir()
