"""From the name of an agent to its folder: one on this machine, the shipped one, or one of the Hugging Face hub.

Everywhere that an agent is named, :func:`find_agent` says what the name means.  The hub's client is an optional part
(``pip install huggingface_hub``), imported when a name asks for it; it keeps what it fetched in its own cache
(``HF_HOME``), and works from there when the hub cannot be reached.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jowa.errors import CheckpointError, UsageError

DEMO = "demo"
"""The name of the agent that comes with the package."""
SHIPPED = Path(__file__).parent / "shipped" / DEMO
"""Where it lies."""
PLAYED = Path("runs/played")
"""Where commands write what they find out about agents whose folder is not theirs to write in."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILES = ["config.json", "*.safetensors"]
"""What an agent is read from."""


def find_agent(name: Path | str, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of the agent that ``name`` means: a folder (or a training run's, which holds its agent), ``demo``, or
    ``owner/name`` on the Hugging Face hub, at ``revision``; a folder of the same name comes first.

    Raises :class:`UsageError` or :class:`CheckpointError`, which say what to do, when there is none.
    """
    folder = _local(name)
    if folder is not None and revision is not None:
        raise UsageError(f"revision {revision} asks for a version on the hub, but {name} is {folder}: leave it out")
    if folder is not None:
        return folder
    if str(name) == DEMO:
        raise CheckpointError(
            f"this installation comes without the {DEMO} agent: train one with make demo (python -m jowa.train), which "
            "takes minutes, and name its folder runs/demo/agent"
        )
    if HUB_ID.fullmatch(str(name)):
        return download(str(name), revision, token)
    raise CheckpointError(
        f"{name} is not an agent: there is no such folder; expected one, {DEMO}, or owner/name on the Hugging Face "
        "hub; train one with python -m jowa.train, or import a published checkpoint with python -m jowa.convert"
    )


def output_folder(name: Path | str) -> Path:
    """Where a command writes what belongs to the agent ``name``: into its own folder, if that is the user's; what is
    shipped or fetched from the hub is not, so beside the runs instead."""
    folder = _local(name)
    return PLAYED / str(name) if folder is None or folder == SHIPPED else folder


def _local(name: Path | str) -> Path | None:
    """The folder that ``name`` means on this machine, if any."""
    folder = Path(name).expanduser()
    if (folder / "agent" / "config.json").is_file():
        return folder / "agent"
    if folder.is_dir() and (str(name) != DEMO or (folder / "config.json").is_file()):
        return folder
    return SHIPPED if str(name) == DEMO and (SHIPPED / "config.json").is_file() else None


def download(repo_id: str, revision: str | None = None, token: str | None = None) -> Path:
    """The folder, in the hub's own cache, of the agent ``repo_id``, of which only what is new is fetched.

    Raises :class:`UsageError` without the hub's client, :class:`CheckpointError` when there is no such agent, or no way
    to it.
    """
    hub = _client(f"there is no folder {repo_id}; to fetch an agent of that name from the Hugging Face hub")
    try:
        return Path(hub.snapshot_download(repo_id, revision=revision, token=token, allow_patterns=FILES))
    except Exception as error:  # the client has many, and its network library more
        raise CheckpointError(f"there is no folder {repo_id}, and {_reason(error, repo_id, revision)}") from error


def upload(
    folder: Path, repo_id: str, keep_card: bool, private: bool | None, revision: str | None, message: str,
    token: str | None,
) -> str:  # fmt: skip
    """Put the agent in ``folder`` on the hub as ``repo_id``, which is made if absent; its address there.

    ``keep_card``: leave a README.md that is there already.  The rest as for :meth:`jowa.agent.Agent.push_to_hub`.
    Raises :class:`UsageError` without the hub's client, :class:`CheckpointError` when the hub refuses.
    """
    if not HUB_ID.fullmatch(repo_id):
        raise UsageError(f"{repo_id!r} is no name on the Hugging Face hub: expected owner/name")
    hub = _client("to put an agent on the Hugging Face hub")
    api = hub.HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        kept = keep_card and api.file_exists(repo_id, "README.md", revision=revision)
        api.upload_folder(
            repo_id=repo_id, folder_path=folder, revision=revision, commit_message=message,
            ignore_patterns=["README.md"] if kept else None,
            delete_patterns=["*.safetensors"],  # a draft head of the version before would guess badly
        )  # fmt: skip
    except Exception as error:  # as in download
        raise CheckpointError(_reason(error, repo_id, revision)) from error
    address = f"{api.endpoint}/{repo_id}"
    return address if revision is None else f"{address}/tree/{revision}"


def _client(purpose: str) -> Any:
    """The module ``huggingface_hub``."""
    try:
        import huggingface_hub
    except ImportError:
        raise UsageError(f"{purpose}, install its client: pip install huggingface_hub") from None
    return huggingface_hub


def _reason(error: Exception, repo_id: str, revision: str | None) -> str:
    """What the hub's client means by ``error``, and what to do."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return (
            f"{repo_id} on the Hugging Face hub wants its terms accepted: do so on its page there, then hf auth login"
        )
    if "RevisionNotFoundError" in kinds:
        return (
            f"{repo_id} on the Hugging Face hub has no revision {revision}: name one of its branches, tags or commits"
        )
    if "RepositoryNotFoundError" in kinds:
        return (
            f"the Hugging Face hub shows no {repo_id}: check the name; if it is private, log in with hf auth login "
            "(or set HF_TOKEN)"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the Hugging Face hub refuses access to {repo_id}: log in with hf auth login (or set HF_TOKEN)"
    if "LocalEntryNotFoundError" in kinds:
        return (
            f"{repo_id} is not in the cache of the Hugging Face hub, which cannot be reached: connect to the network "
            "once (and unset HF_HUB_OFFLINE)"
        )
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return f"the Hugging Face hub could not be used for {repo_id} ({first}): check the network, then try again"
