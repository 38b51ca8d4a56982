"""An exported folder on the model hub, by huggingface_hub's own client. What can be asked early is asked early."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ladder_cli import hub
from ladder_cli.errors import NotReachable, RunFailed, UserError
from ladder_cli.run.credentials import holds_secret

# Files that are text, in which a credential could stand.
_TEXT = {".json", ".jinja", ".md", ".txt"}


@dataclass(frozen=True)
class Push:
    """Where an export goes.

    Attributes:
        repository: OWNER/NAME.
        private: of a repository that is new.
    """

    repository: str
    private: bool

    def refuse_mistakes(self, dry: bool) -> None:
        """Refuse what cannot be pushed; a dry run asks nobody.

        Raises:
            UserError: for a name that is none, no token, or one that the hub does not take.
            NotReachable: if the hub does not answer.
        """
        try:
            validate_repo_id(self.repository)
        except HFValidationError as error:
            raise UserError(f"push={self.repository} names no repository: give push=OWNER/NAME.") from error
        if self.repository.count("/") != 1:
            raise UserError(f"push={self.repository} names no repository: give push=OWNER/NAME.")
        if dry:
            return
        hub.settle_offline()
        if hub.offline():
            raise NotReachable(
                f"push={self.repository}: {hub.reason()}: leave push out and push later (hf upload {self.repository} "
                "DIR), or see with push_dry_run=true what would go there."
            )
        if get_token() is None:
            raise UserError(f"push={self.repository} needs a token of the hub: hf auth login, or set HF_TOKEN.")
        try:
            HfApi().whoami()
        except Exception as error:  # the client raises whatever its transport does
            raise UserError(f"push={self.repository}: the hub does not take this token ({_reason(error)}).") from error

    def send(self, folder: Path) -> str:
        """Upload a folder that is whole, as one commit.

        Returns:
            The commit's address.

        Raises:
            RunFailed: if the hub refuses; the folder stays.
        """
        try:
            HfApi().create_repo(self.repository, private=self.private, exist_ok=True)
            done = HfApi().upload_folder(
                repo_id=self.repository, folder_path=folder, commit_message="Exported by ladder-export"
            )
        except Exception as error:  # the client raises whatever its transport does
            raise RunFailed(
                f"{folder} is written, and was not pushed to {self.repository} ({_reason(error)}): hf upload "
                f"{self.repository} {folder} does it."
            ) from error
        return str(done.commit_url)


def files_of(folder: Path) -> list[tuple[str, int]]:
    """What would go along: every file's name and bytes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]


def refuse_secrets(folder: Path) -> None:
    """Refuse a folder in one of whose texts a credential stands.

    Raises:
        UserError: naming the file, and not what stands in it.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix in _TEXT and holds_secret(path.read_text(encoding="utf-8", errors="replace")):
            raise UserError(f"{path} holds a token or a password, so {folder} is not pushed: take it out first.")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
