"""What the name of an agent means, and the way to the hub and back through the hub's own client."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
import torch

import jowa.hub
from jowa.agent import Agent
from jowa.card import CardFacts, CardScore
from jowa.config import ModelConfig, TokenizerConfig
from jowa.data.record import RecordConfig
from jowa.env.experts.policies import make_policy
from jowa.errors import CheckpointError, UsageError
from jowa.evaluate import Played
from jowa.evaluate import __main__ as evaluating
from jowa.finetune.config import FinetuneConfig
from jowa.games import get_game
from jowa.hub import find_agent, output_folder
from jowa.model import WorldActionModel
from jowa.planner import DraftHead
from jowa.tokenizer import Tokenizer
from jowa.train.presets import get_train_preset
from jowa.train.run import with_folders


class FakeHub:
    """The part of the Hugging Face hub that agents go through, on this machine, for the hub's own client.

    Repositories are dictionaries of files, of one commit each."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, set[str]] = {}
        self.refuse: int | None = None
        """Status with which everything is answered, if any."""
        hub = self

        class Handler(_Handler):
            served = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def commit(self, name: str) -> str:
        """The id of what ``name`` holds now."""
        return hashlib.sha1(repr(sorted(self.files[name].items())).encode()).hexdigest()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, document: Any = None, status: int = 200, body: bytes = b"", **headers: str) -> None:
        body = json.dumps(document).encode() if document is not None else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        hub, path = self.served, urlparse(self.path).path
        given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if hub.refuse is not None:
            return self._answer({"error": "refused"}, hub.refuse)
        if path == "/api/repos/create":
            asked = json.loads(given)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            hub.files.setdefault(name, {})
            hub.branches.setdefault(name, {"main"})
            return self._answer({"url": f"{hub.url}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        found = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+)/([a-z]+)/([^/]+)(?:/(.+))?", path)
        if not found:  # what else the client wants to know
            return self._answer({"error": "not found"}, 404)
        name, verb, revision, file = found.groups()
        if name not in hub.files:
            return self._answer({"error": "not found"}, 404, X_Error_Code="RepoNotFound")
        if verb == "branch":
            hub.branches[name].add(revision)
            return self._answer({})
        if revision not in hub.branches[name] | {hub.commit(name)}:
            return self._answer({"error": "not found"}, 404, X_Error_Code="RevisionNotFound")
        return getattr(self, f"_{verb}")(hub.files[name], hub.commit(name), file, given)

    do_GET = do_HEAD = do_POST = _handle

    def _revision(self, files: dict[str, bytes], commit: str, *_: object) -> None:
        siblings = [{"rfilename": name} for name in files]
        self._answer({"id": "x/y", "sha": commit, "siblings": siblings, "private": False, "tags": [], "downloads": 0})

    def _tree(self, files: dict[str, bytes], *_: object) -> None:
        self._answer([
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ])  # fmt: skip

    def _resolve(self, files: dict[str, bytes], commit: str, file: str, _: bytes) -> None:
        if file not in files:
            return self._answer({"error": "not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        tag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
        return self._answer(body=files[file], ETag=tag, X_Repo_Commit=commit)

    def _preupload(self, files: dict[str, bytes], commit: str, _: str | None, given: bytes) -> None:
        paths = [file["path"] for file in json.loads(given)["files"]]
        self._answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})

    def _commit(self, files: dict[str, bytes], commit: str, _: str | None, given: bytes) -> None:
        for line in map(json.loads, given.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        self._answer({"commitUrl": f"{self.served.url}/x/y/commit/{commit}", "commitOid": commit})


@pytest.fixture(scope="module")
def agent() -> Agent:
    torch.manual_seed(0)
    config = ModelConfig(layers=1, heads=2, width=16, q_width=12, q_ensemble=2, vocab_size=20, context_steps=3)
    tokenizer = Tokenizer(TokenizerConfig("local", vocab_size=20, code_dim=4, channels=8))
    return Agent(tokenizer, WorldActionModel(config), {"Pong": 39, "Freeway": 23})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, in an installation without the demo agent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jowa.hub, "SHIPPED", tmp_path / "site" / "shipped" / "demo")
    return tmp_path


@pytest.fixture
def hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    constants = pytest.importorskip("huggingface_hub.constants")
    served = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    files = served.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield served
    served.close()


def same_weights(one: Agent, other: Agent) -> bool:
    pairs = ((one.tokenizer, other.tokenizer), (one.model, other.model))
    return all(torch.equal(v, b.state_dict()[k]) for a, b in pairs for k, v in a.state_dict().items())


def test_a_folder_is_itself_and_a_run_its_agent(agent: Agent, here: Path) -> None:
    agent.save(here / "run" / "agent")
    for name in ("run/agent", "run", here / "run", Path("run/agent")):
        assert find_agent(name).resolve() == here / "run" / "agent"
        assert output_folder(name) == find_agent(name)
    assert same_weights(Agent.from_pretrained("run", device="cpu"), agent)
    with pytest.raises(UsageError, match="revision v2 asks for a version on the hub, but run is run/agent"):
        find_agent("run", "v2")


def test_demo_is_the_shipped_agent(agent: Agent, here: Path) -> None:
    with pytest.raises(CheckpointError, match="comes without the demo agent: train one with make demo"):
        find_agent("demo")
    agent.save(jowa.hub.SHIPPED)
    assert find_agent("demo") == find_agent(Path("demo")) == jowa.hub.SHIPPED
    assert output_folder("demo") == Path("runs/played/demo")  # never into the installed package
    (here / "demo").mkdir()
    assert find_agent("demo") == jowa.hub.SHIPPED  # some folder of that name is no agent
    agent.save(here / "demo")
    assert find_agent("demo") == output_folder("demo") == Path("demo")


def test_commands_take_demo_and_write_elsewhere(agent: Agent, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.save(jowa.hub.SHIPPED)
    shipped = {path: path.read_bytes() for path in jowa.hub.SHIPPED.iterdir()}
    monkeypatch.setattr(evaluating, "play", lambda *_: [Played("Pong", 0, 1.0, 9), Played("Pong", 1, 2.0, 9)])
    evaluating.evaluate(evaluating.EvaluateConfig(games=("Pong",), planner="none", device="cpu"))
    document = json.loads((here / "runs/played/demo/evaluation-none-sticky.json").read_text())
    assert document["settings"]["agent"] == "demo" and document["games"][0]["mean"] == 1.5
    frame = np.zeros((84, 84), dtype=np.uint8)
    assert make_policy("agent:demo", "Pong").act(frame, None) in get_game("Pong").legal_actions  # type: ignore[arg-type]
    assert RecordConfig(here, ("Pong",), policies=("agent-beam:demo",)).settings("Pong")["agents"].keys() == {
        "agent-beam:demo"
    }
    with_demo = with_folders(replace(get_train_preset("tiny"), start_from=Path("demo")))
    assert (with_demo.start_from, with_demo.tokenizer_from) == (jowa.hub.SHIPPED, None)
    tuned = FinetuneConfig(Path("demo"), "Pong", here).training()
    assert tuned.start_from == jowa.hub.SHIPPED and tuned.model == agent.model.config
    assert {path: path.read_bytes() for path in jowa.hub.SHIPPED.iterdir()} == shipped


def test_what_is_nowhere_says_what_to_do(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"/no/such is not an agent: there is no such folder.*jowa\.train"):
        find_agent("/no/such")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"no folder owner/name; .*pip install huggingface_hub"):
        find_agent("owner/name")
    with pytest.raises(UsageError, match=r"to put an agent on .*pip install huggingface_hub"):
        jowa.hub.upload(here, "owner/name", True, None, None, "", None)


def test_to_the_hub_and_back(agent: Agent, hub: FakeHub, here: Path) -> None:
    assert agent.push_to_hub("owner/name") == f"{hub.url}/owner/name"
    names = {"config.json", "README.md", "model.safetensors", "tokenizer.safetensors"}
    assert set(hub.files["owner/name"]) == names
    loaded = Agent.from_pretrained("owner/name", device="cpu")
    assert same_weights(loaded, agent) and loaded.tasks == agent.tasks and loaded.planning == agent.planning
    assert output_folder("owner/name") == Path("runs/played/owner/name")
    assert not list((here / "cache").rglob("README.md"))  # only what an agent is read from
    commit = hub.commit("owner/name")
    assert find_agent("owner/name", commit) == find_agent("owner/name", "main") == find_agent("owner/name")
    (here / "owner" / "name").mkdir(parents=True)
    assert find_agent("owner/name") == Path("owner/name")  # a folder of that name comes first


def test_a_later_push_replaces_weights_and_keeps_an_edited_card(agent: Agent, hub: FakeHub) -> None:
    with_head = Agent(agent.tokenizer, agent.model, agent.tasks, draft_head=DraftHead(agent.model.config))
    with_head.push_to_hub("owner/name", half=True)
    assert "draft.safetensors" in hub.files["owner/name"]
    hub.files["owner/name"]["README.md"] = b"edited"
    agent.push_to_hub("owner/name")
    assert "draft.safetensors" not in hub.files["owner/name"]
    assert hub.files["owner/name"]["README.md"] == b"edited"
    agent.push_to_hub("owner/name", CardFacts(compute="two cores"))
    assert b"two cores" in hub.files["owner/name"]["README.md"]
    assert agent.push_to_hub("owner/name", revision="small") == f"{hub.url}/owner/name/tree/small"
    assert hub.branches["owner/name"] == {"main", "small"}


def test_what_the_hub_lacks_says_what_to_do(agent: Agent, hub: FakeHub) -> None:
    with pytest.raises(CheckpointError, match=r"no folder owner/none, and .* shows no owner/none: .*hf auth login"):
        find_agent("owner/none")
    agent.push_to_hub("owner/name")
    with pytest.raises(CheckpointError, match="has no revision v9: name one of its branches"):
        find_agent("owner/name", "v9")
    hub.refuse = 403
    with pytest.raises(CheckpointError, match="refuses access to owner/name: log in"):
        agent.push_to_hub("owner/name")
    with pytest.raises(UsageError, match="'name' is no name on the Hugging Face hub: expected owner/name"):
        agent.push_to_hub("name")


def test_without_the_network_the_cache_serves(agent: Agent, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.push_to_hub("owner/name")
    fetched = find_agent("owner/name")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")  # where nobody listens
    assert find_agent("owner/name") == fetched
    with pytest.raises(CheckpointError, match=r"owner/other is not in the cache .*connect to the network"):
        find_agent("owner/other")
    with pytest.raises(CheckpointError, match=r"could not be used for owner/name .*check the network"):
        agent.push_to_hub("owner/name")


def test_the_card_says_what_is_known(agent: Agent, tmp_path: Path) -> None:
    score = CardScore("Pong", "greedy", "sticky, at most 27,000 steps", 12.34, 10.0, 14.5, 16)
    agent.save_pretrained(tmp_path, CardFacts(data="- Pong: 1,000 steps", scores=(score,)))
    front, card = (tmp_path / "README.md").read_text().split("---\n")[1:]
    entries = dict(line.split(": ", 1) for line in front.splitlines())
    assert entries["library_name"] == "jowa" and json.loads(entries["license"]) == "mit"
    assert {"Pong", "Freeway", "atari", "reinforcement-learning"} <= set(json.loads(entries["tags"]))
    (result,) = json.loads(entries["model-index"])[0]["results"]
    assert result["dataset"]["name"] == "Pong" and result["metrics"][0]["value"] == "12.3 [10.0, 14.5]"
    assert "| Pong | greedy | sticky, at most 27,000 steps | 12.3 | [10.0, 14.5] | 16 |" in card
    assert "- Pong: 1,000 steps" in card and "## Compute\n\nNot noted." in card and "## Limits" in card
    (tmp_path / "README.md").write_text("edited")
    agent.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "edited"
