"""Shards are disjoint, and joined they are the cache of a single run."""

import shutil

import pytest
from fixtures.dicom import tree

from lumbar.cache.errors import InputError
from lumbar.cache.store import Cache
from lumbar.pipeline.maintenance.merge import merge
from lumbar.pipeline.source.shard import Shard


@pytest.fixture
def sharded(tools, tmp_path, rsna):
    """A source with studies, a broken file and a missing series; its cache, and three shards."""
    for study in range(300, 306):
        shutil.copytree(
            rsna / "train_images" / "100" / "7", rsna / "train_images" / str(study) / "7"
        )
    (rsna / "train_images" / "300" / "7" / "broken.dcm").write_bytes(b"no")
    (rsna / "train_images" / "stray.dcm").write_bytes(b"no")
    path = rsna / "train_series_descriptions.csv"
    path.write_text(path.read_text() + "400,1,Sagittal T1\n303,7,Sagittal T1\n")
    tools.run(rsna, tmp_path / "whole")
    for number in (1, 2, 3):
        tools.run(rsna, tmp_path / f"shard{number}", shard=Shard(number, 3))
    return [tmp_path / f"shard{number}" for number in (1, 2, 3)]


def test_joined_shards_are_the_bytes_of_one_run(sharded, tmp_path):
    before = [tree(shard) for shard in sharded]
    assert sum(Cache(shard).series.height for shard in sharded) == 9
    assert all(Cache(shard).series.height for shard in sharded)
    list(merge(tmp_path / "joined", sharded[::-1]))
    assert tree(tmp_path / "joined") == tree(tmp_path / "whole")
    assert [tree(shard) for shard in sharded] == before


def test_a_merge_that_was_stopped_goes_on(sharded, tmp_path):
    taken = merge(tmp_path / "joined", sharded)
    next(taken)
    next(taken)
    taken.close()
    list(merge(tmp_path / "joined", sharded))
    assert tree(tmp_path / "joined") == tree(tmp_path / "whole")


def test_where_no_link_can_be_made_volumes_are_copied(sharded, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(type(tmp_path), "hardlink_to", refuse)
    list(merge(tmp_path / "joined", sharded))
    assert tree(tmp_path / "joined") == tree(tmp_path / "whole")


def test_a_merged_cache_is_brought_up_to_date_like_any_other(
    sharded, tools, tmp_path, rsna, settled, converted
):
    for number, shard in enumerate(sharded, 1):
        tools.run(rsna, shard, shard=Shard(number, 3))
    list(merge(tmp_path / "joined", sharded))
    converted.clear()
    assert tools.run(rsna, tmp_path / "joined")[-1].n_reused == 9
    assert converted == []


def test_what_are_not_all_the_shards_of_one_run_is_refused(sharded, tools, tmp_path, rsna):
    for wrong in (sharded[:2], [*sharded, sharded[0]], [*sharded[:2], sharded[0]]):
        with pytest.raises(InputError, match="not all the shards"):
            list(merge(tmp_path / "joined", wrong))
    with pytest.raises(InputError, match="no shard"):
        list(merge(tmp_path / "joined", [tmp_path / "whole"]))
    shutil.rmtree(sharded[2])
    tools.run(
        rsna, sharded[2], tools.exact.model_copy(update={"dtype": "uint8"}), shard=Shard(3, 3)
    )
    with pytest.raises(InputError, match="differ in their config"):
        list(merge(tmp_path / "joined", sharded))


def test_another_shard_is_refused_with_both(sharded, tools, rsna):
    with pytest.raises(InputError, match=r"another shard: .*got shard 2/3; expected shard 1/3"):
        tools.run(rsna, sharded[0], shard=Shard(2, 3))
    with pytest.raises(InputError, match="got the whole source"):
        tools.run(rsna, sharded[0])


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(InputError, match="--shard"):
        Shard.parse(text)


def test_every_study_is_of_one_shard():
    shards = [Shard(number, 7) for number in range(1, 8)]
    counts = [0] * 7
    for study in range(2000):
        held = [shard.holds(str(study)) for shard in shards]
        assert held.count(True) == 1
        counts[held.index(True)] += 1
    assert min(counts) > 200
    assert Shard.parse("2/7") == shards[1]


def test_a_shard_without_studies_is_sound(tools, command_line, tmp_path, rsna):
    """Of few studies some shards have none: their caches verify, and are merged like others."""
    empty = []
    for number in range(1, 5):
        tools.run(rsna, tmp_path / f"s{number}", shard=Shard(number, 4))
        if Cache(tmp_path / f"s{number}").is_empty_shard:
            empty.append(tmp_path / f"s{number}")
    assert len(empty) == 2
    checked = command_line("verify", empty[0])
    assert checked.status == 0
    assert "a shard without studies" in checked.out
    for _ in merge(tmp_path / "out", [tmp_path / f"s{number}" for number in range(1, 5)]):
        pass
    assert Cache(tmp_path / "out").series.height == 3
