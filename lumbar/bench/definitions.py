"""What each number of the benchmark means, and where its definition comes from."""

from __future__ import annotations

from dataclasses import dataclass

from lumbar.bench.verdict import COMPUTE_BOUND, GPU_BUSY, WORTH_SAYING

OWN = "lumbar's own"
STALLS = (
    "Mohan, Phanishayee, Raniwala, Chidambaram: Analyzing and Mitigating Data Stalls in DNN "
    "Training, PVLDB 14(5), 2021"
)
MLPERF = "MLPerf Storage Benchmark, Submission Guidelines, Performance Metrics"
NVML = "NVML API Reference Guide"
GPM = f"{NVML}, nvmlGpmMetricId_t; Hopper and newer GPUs"
PROC = "Linux kernel documentation, The /proc Filesystem"


@dataclass(frozen=True, slots=True)
class Definition:
    """One number: its name in the tables, its unit, what it means, and who says so."""

    name: str
    unit: str
    meaning: str
    source: str


SPEED = (
    Definition(
        "volumes/s",
        "volumes/s",
        "samples over wall time, a sample being one crop of one series; the median of the "
        "windows, with the least and the greatest beside it",
        OWN,
    ),
    Definition(
        "Mvoxel/s",
        "Mvoxel/s",
        "volumes/s x the voxels of a crop (slices x height x width) / 10^6, padding included",
        OWN,
    ),
    Definition(
        "ceiling",
        "volumes/s",
        "the step on one batch that lies on the device already and is replayed: no loader can be "
        "faster",
        f"{STALLS}: ingestion rate without stalls",
    ),
    Definition(
        "share of ceiling",
        "times",
        "volumes/s end to end / the ceiling",
        OWN,
    ),
    Definition(
        "from disk",
        "MB/s",
        "read_bytes of /proc/PID/io, of this process and all below it, over the window; what the "
        "page cache served is not in it",
        f"{PROC}, /proc/PID/io",
    ),
    Definition(
        "to device",
        "MB/s",
        "voxel bytes a volume that the loader copies from host to device, by arithmetic, x "
        "volumes/s; none where there is no device but the host",
        OWN,
    ),
)

WAITING = (
    Definition(
        "step",
        "ms",
        "from the arrival of a batch to the end of its optimiser step, by device events; the "
        "median of a window",
        OWN,
    ),
    Definition(
        "wait",
        "ms",
        "from the end of a step to the arrival of the next batch; p50, p95 and p99 of all waits "
        "of all windows, whose number stands in bench.json: of a few, p99 is about the greatest",
        OWN,
    ),
    Definition(
        "data stall",
        "%",
        "sum of the waits / wall time",
        f"{STALLS}: time spent waiting for data to be fetched and pre-processed",
    ),
    Definition(
        "AU",
        "%",
        "accelerator utilisation: total compute time / total benchmark running time; here "
        "steps x t_compute / wall time, t_compute being the median step on the replayed batch; "
        "the first steps are left out, and a fast window may come to a little over 100",
        MLPERF,
    ),
    Definition(
        "host share",
        "%",
        "100 - AU - data stall, at least 0: the step itself takes longer behind the loader than "
        "on the replayed batch",
        OWN,
    ),
    Definition(
        "first batch",
        "s",
        "from opening the loader to its first batch on the device, start of processes included",
        OWN,
    ),
)

COSTS = (
    Definition(
        "CPU time a volume",
        "ms; s in bench.json",
        "user and system time of this process and all below it, over the volumes of the window, "
        "the loader alone",
        f"{PROC}, /proc/PID/stat",
    ),
    Definition(
        "memory",
        "MB",
        "proportional set size (PSS) of this process and all below it after the last window: a "
        "page that several share counts once; mapped files count while they are in memory, and so "
        "do torch, the model and the process that workers are forked from",
        f"{PROC}, /proc/PID/smaps_rollup",
    ),
    Definition(
        "cpu utilisation",
        "%",
        "busy share of the cores that this process may run on, busy with whatever it was",
        f"{PROC}, /proc/stat",
    ),
    Definition(
        "sampler cost",
        "% of a core",
        "CPU seconds of the thread that reads the counters / wall time",
        OWN,
    ),
)

DEVICE = (
    Definition(
        "gpu utilisation",
        "%",
        "share of the driver's last sample period, 1/6 to 1 s, in which at least one kernel ran, "
        "the loader's own included; a GPU may be at 100 and mostly idle",
        f"{NVML}, nvmlUtilization_t",
    ),
    Definition(
        "sm activity",
        "%",
        "multiprocessors that were busy, the mean over time",
        f"{GPM}, SM_UTIL",
    ),
    Definition(
        "sm occupancy",
        "%",
        "warps that were active, of the most in theory",
        f"{GPM}, SM_OCCUPANCY",
    ),
    Definition(
        "tensor activity",
        "%",
        "time in which the multiprocessors did tensor operations of any kind",
        f"{GPM}, ANY_TENSOR_UTIL",
    ),
    Definition(
        "dram activity",
        "%",
        "device memory bandwidth in use, of the most in theory",
        f"{GPM}, DRAM_BW_UTIL",
    ),
    Definition(
        "pcie to device",
        "MB/s",
        "PCIe traffic to the GPU, from whatever process, in 10^6 bytes",
        f"{GPM}, PCIE_RX_PER_SEC",
    ),
    Definition(
        "pcie from device",
        "MB/s",
        "PCIe traffic from the GPU, in 10^6 bytes",
        f"{GPM}, PCIE_TX_PER_SEC",
    ),
    Definition(
        "device memory",
        "MB",
        "the most device memory in use during the windows, by all processes and the driver",
        f"{NVML}, nvmlDeviceGetMemoryInfo",
    ),
    Definition(
        "power",
        "W",
        "the board's power draw, the mean of the windows",
        f"{NVML}, nvmlDeviceGetPowerUsage",
    ),
    Definition(
        "energy per volume",
        "J",
        "the GPU's energy over a window and the step before it / their volumes; the host's is not "
        "in it",
        f"{NVML}, nvmlDeviceGetTotalEnergyConsumption",
    ),
)

RULES = (
    Definition(
        "warm",
        "",
        "the page cache is left as it was: files that were read lately come from memory",
        OWN,
    ),
    Definition(
        "cold",
        "",
        "the cache's files are dropped from the page cache before each repeat, which then reads "
        "at most an epoch; its time counts from opening the loader",
        OWN,
    ),
    Definition(
        "compute-bound",
        "",
        f"AU of {100 * COMPUTE_BOUND:g} % or more: no loader could save more than the rest; but "
        f"host-bound where the GPU is busy less than {GPU_BUSY:g} % of the time even on the "
        "replayed batch",
        f"{OWN}; {MLPERF} pass at 90 %",
    ),
    Definition(
        "input-bound",
        "",
        f"AU below {100 * COMPUTE_BOUND:g} %, and the data stall is no smaller than the host share",
        OWN,
    ),
    Definition(
        "host-bound",
        "",
        f"AU below {100 * COMPUTE_BOUND:g} %, and the host share is greater than the data stall",
        OWN,
    ),
    Definition(
        "drawing-bound",
        "",
        "as host-bound, behind a reader that draws on the GPU, while the GPU is busy "
        f"{GPU_BUSY:g} % of the time or more: it draws the next batch beside the step",
        OWN,
    ),
    Definition(
        "times as fast",
        "times",
        "volumes/s end to end with one setting changed / those without the change, both measured",
        OWN,
    ),
    Definition(
        "advice",
        "",
        "the measured change with the greatest gain end to end, if it is at least "
        f"{WORTH_SAYING:g} times as fast",
        OWN,
    ),
)

DEFINITIONS = (*SPEED, *WAITING, *COSTS, *DEVICE, *RULES)


def to_markdown() -> str:
    """Return all definitions as one table."""
    lines = ["| number | unit | what it is | source |", "|---|---|---|---|"]
    lines += [f"| {d.name} | {d.unit} | {d.meaning} | {d.source} |" for d in DEFINITIONS]
    return "\n".join(lines) + "\n"
