"""Upload an exported folder to the Hugging Face Hub. Imports no torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path

from vitexp.errors import ConfigError, UserError, reason, require

FILES = ("README.md", "config.json", "config.yaml", "model.safetensors", "result.json")
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_LONGEST = 96  # characters of OWNER/NAME


def refuse_unusable_push(repository: str, export: Collection[str]) -> None:
    """Raise ConfigError if push=`repository` cannot work, as far as this is known without a network.

    export: the formats of export=, which must contain "hub".
    """
    if "hub" not in export:
        raise ConfigError(f"push={repository} uploads the folder of export=hub; add export=hub.")
    owner, _, name = repository.partition("/")
    is_plain = all(_NAME.fullmatch(part) and "--" not in part and ".." not in part for part in (owner, name))
    if not is_plain or len(repository) > _LONGEST or name.endswith(".git"):
        raise ConfigError(f"push={repository} must be OWNER/NAME, such as push=my-account/my-model.")
    require("huggingface_hub", needed_by="push")
    from huggingface_hub import get_token

    if not get_token():
        raise ConfigError(f"push={repository} needs a token with write access; run `hf auth login`, or set HF_TOKEN.")


def push_folder(folder: Path, repository: str) -> str:
    """Upload the files of an export to `repository`, OWNER/NAME, and return its address.

    A repository that does not exist is created, private; the others keep their visibility. Raises UserError.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi(library_name="vitexp")
    try:
        url = str(api.create_repo(repository, private=True, exist_ok=True))
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(FILES),
            delete_patterns=["config.json"],  # of an earlier network that timm had
            commit_message="Upload a network trained with vitexp",
        )
    except Exception as error:  # also those of its HTTP library
        again = f"hf upload {repository} {shlex.quote(str(folder))}"
        raise UserError(
            f"push={repository}: {_cause(error, repository, constants.ENDPOINT)}; the folder is complete, so "
            f"`{again}` uploads it later."
        ) from error
    return url


def _cause(error: Exception, repository: str, endpoint: str) -> str:
    """Return what went wrong, as a clause."""
    cause: BaseException | None = error
    while cause is not None and getattr(cause, "response", None) is None:
        cause = cause.__cause__
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status == 401:
        return f"{endpoint} refused the token; run `hf auth login` again, or correct HF_TOKEN"
    if status == 403:
        return f"the token has no write access to {repository.partition('/')[0]}"
    said = str(getattr(cause, "server_message", None) or "") or reason(error)
    if status in (400, 409, 422):
        return f"{endpoint} refused it: {said.strip().rstrip('.')}"
    return f"cannot upload to {endpoint} ({said.strip().rstrip('.')})"
