import pytest

from lumbar.train.telemetry import cgroup
from lumbar.train.telemetry.cgroup import memory_limit_bytes, quota_cores


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return a function that makes a tree of control groups as in ``/proc``.

    ``mounts`` are (group, folder, file system, options), ``paths`` lines of ``/proc/self/cgroup``,
    ``files`` what stands below ``tmp_path``.
    """

    def make(mounts, paths, files):
        lines = [
            f"31 23 0:28 {group} {tmp_path / folder} rw,relatime - {kind} {kind} {options}"
            for group, folder, kind, options in mounts
        ]
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(cgroup, "MOUNTS", tmp_path / "mountinfo")
        monkeypatch.setattr(cgroup, "GROUPS", tmp_path / "cgroup")
        cgroup.MOUNTS.write_text("\n".join(["22 1 8:1 / / rw - ext4 /dev/root rw", *lines]))
        cgroup.GROUPS.write_text("\n".join(paths))

    return make


V2 = ("/", "fs", "cgroup2", "rw,nsdelegate")
V1_CPU = ("/", "fs/cpu", "cgroup", "rw,cpu,cpuacct")
V1_MEMORY = ("/", "fs/memory", "cgroup", "rw,memory")


def test_version_2_takes_the_least_of_a_group_and_those_above_it(groups):
    files = {
        "fs/jobs/7/cpu.max": "800000 100000\n",
        "fs/jobs/cpu.max": "350000 100000\n",
        "fs/jobs/7/memory.max": "8000000000\n",
        "fs/jobs/memory.max": "max\n",
    }
    groups([V2], ["0::/jobs/7"], files)
    assert quota_cores() == 3.5
    assert memory_limit_bytes() == 8_000_000_000


def test_version_2_without_a_limit(groups):
    groups([V2], ["0::/"], {"fs/cpu.max": "max 100000\n", "fs/memory.max": "max\n"})
    assert quota_cores() is None
    assert memory_limit_bytes() is None


def test_version_1(groups):
    files = {
        "fs/cpu/a/cpu.cfs_quota_us": "150000",
        "fs/cpu/a/cpu.cfs_period_us": "50000",
        "fs/memory/a/memory.limit_in_bytes": "4294967296",
        "fs/memory/memory.limit_in_bytes": "9223372036854771712",
    }
    groups([V1_CPU, V1_MEMORY], ["2:cpu,cpuacct:/a", "4:memory:/a"], files)
    assert quota_cores() == 3
    assert memory_limit_bytes() == 2**32


def test_version_1_without_a_limit(groups):
    files = {
        "fs/cpu/cpu.cfs_quota_us": "-1",
        "fs/cpu/cpu.cfs_period_us": "100000",
        "fs/memory/memory.limit_in_bytes": "9223372036854771712",
    }
    groups([V1_CPU, V1_MEMORY], ["2:cpu,cpuacct:/", "4:memory:/"], files)
    assert quota_cores() is None
    assert memory_limit_bytes() is None


@pytest.mark.parametrize("path", ["/docker/abc", "/docker/abc/inner", "/elsewhere"])
def test_what_is_mounted_may_be_the_group_itself(groups, path):
    mount = ("/docker/abc", "fs", "cgroup2", "rw")
    groups([mount], [f"0::{path}"], {"fs/cpu.max": "200000 100000"})
    assert quota_cores() == 2


def test_controllers_of_version_1_beside_version_2(groups):
    mounts = [V1_CPU, ("/", "fs/unified", "cgroup2", "rw")]
    files = {"fs/cpu/b/cpu.cfs_quota_us": "100000", "fs/cpu/b/cpu.cfs_period_us": "100000"}
    groups(mounts, ["1:cpu:/b", "0::/"], files)
    assert quota_cores() == 1


def test_a_system_without_control_groups_has_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(cgroup, "MOUNTS", tmp_path / "none")
    monkeypatch.setattr(cgroup, "GROUPS", tmp_path / "none")
    assert quota_cores() is None
    assert memory_limit_bytes() is None
