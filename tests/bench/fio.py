"""fio's figures of the disk tier's shapes of I/O, beside kvtier_bench's own probe: io_uring,
O_DIRECT, on one file of DIRECTORY that goes afterwards. Usage: fio.py DIRECTORY [MEBIBYTES]"""

import json
import shutil
import subprocess
import sys
import tempfile

SHAPES = {
    "page_read": ("randread", "32k", 32),
    "block_read": ("randread", "256k", 8),
    "restore": ("read", "1m", 32),
    "durable_write": ("write", "1m", 32),  # with an fdatasync at the end
}
SECONDS = 5


def measure(path, mebibytes, kind, block, depth):
    """GB/s."""
    command = [
        "fio", "--name=kvtier", f"--filename={path}", f"--rw={kind}", f"--bs={block}",
        f"--iodepth={depth}", f"--size={mebibytes}m", "--ioengine=io_uring", "--direct=1",
        "--output-format=json",
    ]  # fmt: skip
    if kind == "write":
        command += ["--end_fsync=1", "--overwrite=1"]
    else:
        command += ["--time_based", f"--runtime={SECONDS}"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    job = json.loads(out[out.index("{") :])["jobs"][0]
    side = job["write" if kind == "write" else "read"]
    # fio counts a write's time without the flush after it.
    seconds = job["job_runtime"] / 1000
    return side["io_bytes"] / 1e9 / seconds


def main():
    directory, mebibytes = sys.argv[1], int((sys.argv[2:] or [1024])[0])
    if shutil.which("fio") is None:
        print("disk.fio_*: no fio here ('apt install fio'), so none of its figures", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory(prefix="kvtier-fio-", dir=directory) as own:
        for name, (kind, block, depth) in SHAPES.items():
            rate = measure(f"{own}/file", mebibytes, kind, block, depth)
            print(f"disk.fio_{name:<16} {rate:8.3f} GB/s  {kind} {block}, {depth} at a time")


if __name__ == "__main__":
    main()
