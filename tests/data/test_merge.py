"""Joining stores: the new one is the concatenation of its sources, whatever happens while it is made."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from jowa.data import schema
from jowa.data.merge import merge
from jowa.data.store import EpisodeStore
from jowa.data.verify import verify
from jowa.data.writer import EpisodeWriter
from jowa.errors import DataError, UsageError, describe_os_error

CRASHING_MERGE = Path(__file__).parent / "crashing_merge.py"
LENGTHS = {"one": [40, 7, 60], "two": [33, 21], "old": [50, 64, 3]}


@pytest.fixture(scope="module")
def episodes(make_episode):
    def of(name: str, games=("Pong", "Boxing")):
        first = 100 * list(LENGTHS).index(name)
        return [
            make_episode(game, length, first + k, terminal=k != 1, policy=f"{name}{k % 2}")
            for game in games
            for k, length in enumerate(LENGTHS[name])
        ]

    return of


@pytest.fixture(scope="module")
def made(tmp_path_factory, episodes, make_store_of, make_old_store) -> Path:
    """Three stores of two games: two of today's version, one of version 1."""
    folder = tmp_path_factory.mktemp("sources")
    make_store_of(folder / "one", episodes("one"))
    make_store_of(folder / "two", episodes("two"))
    make_old_store(folder / "old", episodes("old"))
    return folder


@pytest.fixture
def sources(tmp_path, made) -> list[str]:
    """Copies of them, to be done with as a test likes."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return [str(tmp_path / name) for name in LENGTHS]


def assert_holds(path: Path, expected, assert_same_episode) -> None:
    store = EpisodeStore.open(path)
    for game in {episode.game for episode in expected}:
        wanted = [episode for episode in expected if episode.game == game]
        assert store.num_episodes(game) == len(wanted)
        assert store.num_steps(game) == sum(len(episode) for episode in wanted)
        for number, episode in enumerate(wanted):
            assert_same_episode(store.read_episode(game, number), episode)


def test_the_old_store_is_one(tmp_path, sources, episodes, assert_same_episode) -> None:
    assert EpisodeStore.open(sources[2]).attributes["version"] == 1
    assert_holds(Path(sources[2]), episodes("old"), assert_same_episode)


def test_a_merge_is_the_concatenation_of_its_sources(tmp_path, sources, episodes, assert_same_episode) -> None:
    summary = merge(sources, tmp_path / "out", progress=False)
    assert_holds(tmp_path / "out", [e for name in LENGTHS for e in episodes(name)], assert_same_episode)
    assert (summary.copied, summary.reused, len(summary.blocks)) == (4, 0, 6)
    report = verify(tmp_path / "out", progress=False)
    assert not report.findings and report.frames == 2 * sum(map(sum, LENGTHS.values()))
    store = EpisodeStore.open(tmp_path / "out")
    assert store.attributes["version"] == schema.VERSION
    offsets = store.table("Pong")["offset"].tolist()
    assert offsets == [0, 40, 47, 16384, 16417, 32768, 32818, 32882]
    assert [info.policy for info in store.episodes("Pong")][:4] == ["one0", "one1", "one0", "two0"]
    merged = store.attributes["merged"]["Pong"]
    assert [source["path"] for source in merged["sources"]] == sources and merged["layout"] == "default"
    assert [source["episodes"] for source in merged["sources"]] == [3, 2, 3]


def test_files_are_copied_as_they_are(tmp_path, sources, contents) -> None:
    merge(sources[:2], tmp_path / "out", progress=False)
    for game in ("Pong", "Boxing"):
        for number, source in enumerate(sources[:2]):
            for array, rest in (("frames", "/0/0"), ("actions", ""), ("rewards", "")):
                there, here = (f"{game}/{array}/c/{k}{rest}" for k in (0, number))
                assert contents(Path(source))[there] == contents(tmp_path / "out")[here]


def test_another_layout_packs_anew_and_closes_gaps(tmp_path, sources, episodes, assert_same_episode) -> None:
    merge(sources[:2], tmp_path / "gaps", progress=False)
    assert EpisodeStore.open(tmp_path / "gaps").num_rows("Pong") == 16384 + 54
    summary = merge([str(tmp_path / "gaps")], tmp_path / "out", layout="fast", progress=False)
    assert summary.copied == 0
    assert_holds(tmp_path / "out", [e for name in ("one", "two") for e in episodes(name)], assert_same_episode)
    store = EpisodeStore.open(tmp_path / "out")
    assert store.num_rows("Pong") == store.num_steps("Pong") == 107 + 54
    assert store.rows("Pong", "frames").info.chunk_rows == schema.LAYOUTS["fast"].frames_per_chunk
    origin = store.attributes["merged"]["Pong"]["sources"][0]["origin"]["merged"]
    assert [source["path"] for source in origin["sources"]] == sources[:2]


def test_gaps_are_copied_with_the_files(tmp_path, sources, episodes, assert_same_episode) -> None:
    merge(sources[:2], tmp_path / "gaps", progress=False)
    summary = merge([str(tmp_path / "gaps"), sources[2]], tmp_path / "out", progress=False)
    assert summary.copied == 2
    assert_holds(tmp_path / "out", [e for name in LENGTHS for e in episodes(name)], assert_same_episode)
    assert EpisodeStore.open(tmp_path / "out").table("Pong")["offset"].tolist()[-3:] == [32768, 32818, 32882]
    assert not verify(tmp_path / "out", progress=False).findings


def test_sources_that_share_episodes_are_refused(tmp_path, make_episode, make_store_of) -> None:
    """The longer recording holds the shorter one: joined, its episodes would count twice."""
    same = [make_episode("Pong", length, 5 + length) for length in (10, 20, 30)]
    make_store_of(tmp_path / "short", same[:2])
    make_store_of(tmp_path / "long", [*same, make_episode("Boxing", 9, 3)])
    both = [str(tmp_path / "short"), str(tmp_path / "long")]
    with pytest.raises(UsageError, match=r"short and \S+/long share 2 episodes of Pong .*name the one that holds more"):
        merge(both, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    merge(both, tmp_path / "out", games=["Boxing"], progress=False)


def test_episodes_over_shard_borders(
    tmp_path, make_episode, make_store_of, make_old_store, assert_same_episode
) -> None:
    long = [make_episode("Pong", length, k) for k, length in enumerate((9000, 9000, 16384, 5))]
    make_store_of(tmp_path / "new", long)
    others = [make_episode("Pong", length, 9 + k) for k, length in enumerate((16000, 900, 3))]
    make_old_store(tmp_path / "old", others)
    merge([str(tmp_path / "old"), str(tmp_path / "new")], tmp_path / "out", progress=False)
    assert_holds(tmp_path / "out", others + long, assert_same_episode)
    assert not verify(tmp_path / "out", progress=False).findings


def test_only_some_games(tmp_path, sources, episodes, assert_same_episode) -> None:
    merge(sources[:2], tmp_path / "out", games=["Boxing"], progress=False)
    assert EpisodeStore.open(tmp_path / "out").games == ("Boxing",)
    wanted = [e for name in ("one", "two") for e in episodes(name, ["Boxing"])]
    assert_holds(tmp_path / "out", wanted, assert_same_episode)
    with pytest.raises(UsageError, match="unknown game in these data sets: 'Breakout'"):
        merge(sources, tmp_path / "other", games=["Breakout"], progress=False)


def test_a_second_run_changes_nothing(tmp_path, sources, contents) -> None:
    merge(sources, tmp_path / "out", progress=False)
    before = contents(tmp_path / "out")
    assert merge(sources, tmp_path / "out", progress=False).reused == 6
    assert contents(tmp_path / "out") == before


@pytest.mark.slow
def test_kill_9_at_50_random_points(tmp_path, sources, command, contents, monkeypatch) -> None:
    """After a rerun the store equals one that was never interrupted, in every byte of every file."""
    writes = 0
    for name in ("replace", "rename"):
        original = getattr(Path, name)

        def counted(self: Path, target: Path, original=original) -> Path:
            nonlocal writes
            writes += 1
            return original(self, target)

        monkeypatch.setattr(Path, name, counted)
    sources = [sources[0], sources[2]]
    merge(sources, tmp_path / "whole", progress=False)
    monkeypatch.undo()
    whole = contents(tmp_path / "whole")
    points = [(where, number) for where in ("before", "after") for number in range(1, writes + 1)]
    unfinished = 0
    for where, number in random.Random(0).sample(points, 50):
        out = tmp_path / f"{where}{number}"
        done = command(str(CRASHING_MERGE), where, number, out, *sources)
        assert done.returncode == -9, done.stderr
        if (out / "zarr.json").exists():
            report = verify(out, progress=False)
            assert not report.damage, (where, number)
            unfinished += any("the merge is not finished" in finding.what for finding in report.findings)
        merge(sources, out, progress=False)
        assert contents(out) == whole, (where, number)
        shutil.rmtree(out)
    assert unfinished > 10


def test_what_is_refused(tmp_path, sources, make_episode, make_store_of, contents) -> None:
    one, two, _ = sources
    merge([one], tmp_path / "out", games=["Pong"], progress=False)
    make_store_of(tmp_path / "else", [make_episode("Pong", 5)])
    (tmp_path / "file").write_text("")
    shutil.copytree(one, tmp_path / "copy")
    before = contents(tmp_path)
    for names, out, options, message in (
        ([one], "out", {}, "is the merge of something else .Boxing was not part of it"),
        ([one, two], "out", {"games": ["Pong"]}, r"Pong came from \S+/one, now from \S+/one, \S+/two"),
        ([one], "out", {"games": ["Pong"], "layout": "fast"}, "the layout of Pong was default, now fast"),
        ([one], "else", {}, "was not made by merge: choose a new folder"),
        ([one], "one", {}, "are, or contain, one another"),
        ([one], "one/inside", {}, "are, or contain, one another"),
        ([one, one], "new", {}, "is named twice"),
        ([one, str(tmp_path / "copy")], "new", {}, "hold the same episodes of Boxing: name one only"),
        ([one], "file", {}, "is a file: name a folder"),
        ([one], "new", {"layout": "best"}, "unknown layout 'best'"),
        ([one], "new", {"games": ["Pnog"]}, "unknown game 'Pnog': did you mean Pong"),
        ([], "new", {}, "no data sets to merge"),
        (["gs://bucket/store"], "new", {}, "is remote: copy it"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            merge(names, tmp_path / out, progress=False, **options)
        assert "\n" not in str(caught.value)
        assert contents(tmp_path) == before, message
    with pytest.raises(DataError, match="no data set at"):
        merge([one, str(tmp_path / "nowhere")], tmp_path / "new", progress=False)


def test_a_source_that_grew_is_noticed(tmp_path, sources, make_episode, make_store_of) -> None:
    merge(sources[:1], tmp_path / "out", progress=False)
    make_store_of(Path(sources[0]), [make_episode("Pong", 4, 77)])
    with pytest.raises(UsageError, match=r"Pong in \S+/one has changed since"):
        merge(sources[:1], tmp_path / "out", progress=False)


@pytest.mark.parametrize("name", ["one", "old"])
@pytest.mark.parametrize("array", ["frames", "actions", "rewards", "episode_seed"])
def test_a_damaged_source_is_named_and_nothing_of_it_taken(tmp_path, sources, name, array) -> None:
    file = next(f for f in (tmp_path / name / "Pong" / array / "c").rglob("*") if f.is_file())
    data = bytearray(file.read_bytes())
    data[9] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}/Pong/{array}/c/0.* is damaged .*episode|{array}.*damaged") as caught:
        merge(sources, tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)
    there = {game: schema.check_game(tmp_path / "out", game)["num_episodes"] for game in ("Pong", "Boxing")
             if (tmp_path / "out" / game).exists()}  # fmt: skip
    before = {"one": {"Boxing": 3, "Pong": 0}, "old": {"Boxing": 8, "Pong": 5}}[name]
    assert there == (before if array == "frames" else {})  # what is small is read before anything is written


@pytest.mark.parametrize("name", ["one", "old"])
def test_illegal_values_are_not_taken(tmp_path, sources, name) -> None:
    import zarr

    zarr.open_array(tmp_path / name / "Pong/actions", mode="r+")[45] = 2
    with pytest.raises(DataError, match=r"Pong.* is damaged .*not legal"):
        merge(sources, tmp_path / "out", progress=False)


def test_two_merges_into_one_store(tmp_path, sources) -> None:
    with (
        EpisodeWriter.open(tmp_path / "out"),
        pytest.raises(DataError, match="is being written by another process: wait"),
    ):
        merge(sources, tmp_path / "out", progress=False)


@pytest.mark.parametrize("fails_at", [1, 2, 30, 55, 70, 110])
def test_disk_full(tmp_path, sources, full_disk, contents, fails_at) -> None:
    merge(sources, tmp_path / "whole", progress=False)
    with full_disk(fails_at), pytest.raises(OSError) as caught:
        merge(sources, tmp_path / "out", progress=False)
    assert describe_os_error(caught.value).startswith(f"the disk is full at {tmp_path / 'out'}")
    merge(sources, tmp_path / "out", progress=False)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_was_printed(tmp_path, sources) -> None:
    (Path(sources[1]) / "tokens").mkdir()
    lines = merge(sources[:2], tmp_path / "out", progress=False).describe()
    assert lines[0] == f"{sources[0]}: Boxing, 3 episodes, 107 steps" and len(lines) == 6
    assert lines[-2] == f"tokens of {sources[1]} were not taken over: make them anew with python -m jowa.tokenize"
    assert lines[-1].endswith("out: 10 episodes, 322 steps in 4 blocks (0 were there, 4 copied, 0 packed anew)")


def test_a_block_with_many_policies_keeps_them_apart(tmp_path, make_episode, make_store_of) -> None:
    for name, order in (("a", "xyz"), ("b", "zwx")):
        make_store_of(tmp_path / name, [make_episode("Pong", 3, ord(p) + ord(name), policy=p) for p in order])
    merge([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "out", progress=False)
    store = EpisodeStore.open(tmp_path / "out")
    assert [info.policy for info in store.episodes("Pong")] == list("xyzzwx")
    assert np.unique(store.table("Pong")["policy"]).tolist() == [0, 1, 2, 3]
