#!/usr/bin/env python3
"""Times outlierd's int8 engine against ONNX Runtime, tract and rten, all in one interleaved run.

    cargo build --release --bin outlierd --example tract_peer
    benches/peers.py MODEL.onnx [MODEL.onnx ...] [--float FLOAT.onnx] [--json FILE]

Needs PyPI's onnxruntime and numpy, and cargo for rten (a package of its own in benches/rten, built on demand).

Each peer runs in a process of its own; the processes take turns (A, B, C, A, B, C, ...) for --rounds rounds, so that
a slower spell of the machine meets all of them. A time is the forward pass alone, batch 1, after warming up. Of each
peer the table gives the median and the minimum over all rounds, and ours / theirs of both.

- ours            `outlierd bench --json`, its stages_ms.network, at the output's own tap
- ours/ISA        the same with OUTLIERD_ISA=ISA for each --isa
- onnxruntime     the same file, intra-op threads as ours, inter-op 1, all optimizations
- tract           the same file as tract itself runs it (examples/tract_peer.rs); one thread
- tract float     the file of --float as tract itself runs it
- ours float      the file of --float by outlierd, which then runs as tract's operators do
- rten            the same file

A peer that cannot load or run a file is listed with its own words. For a quiet machine run it under `chrt -f 10`,
which the peers inherit; --cpus pins them. With real-time priority a run that waits by spinning can starve the threads
that it waits for: keep N threads to N processors.

--goals prints what is wanted of ours and exits with 1 where it is missed.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

# ONNX Runtime, in a process of its own: `python peers.py --onnxruntime FILE RUNS THREADS`.
ORT = "--onnxruntime"


def onnxruntime_peer(path, runs, threads):
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    load = time.perf_counter() - start
    wanted = session.get_inputs()[0]
    shape = [1, 3] + [side if isinstance(side, int) else 224 for side in wanted.shape[2:]]
    pixels = numpy.random.default_rng(0).uniform(-120, 140, shape).astype(numpy.float32)
    laps = []
    for run in range(runs + 3):
        start = time.perf_counter()
        session.run(None, {wanted.name: pixels})
        if run >= 3:
            laps.append((time.perf_counter() - start) * 1e3)
    return {"load_ms": load * 1e3, "ms": laps, "version": onnxruntime.__version__}


class Peer:
    """A command that prints one JSON object, and what it said so far."""

    def __init__(self, name, command, environment=None, ours=False):
        self.name, self.command, self.ours = name, [str(part) for part in command], ours
        self.environment = {**os.environ, **(environment or {})}
        self.reports, self.error = [], None

    def run(self, timeout):
        if self.error:
            return
        try:
            done = subprocess.run(self.command, env=self.environment, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            self.error = f"no answer in {timeout} s"
            return
        lines = done.stdout.strip()
        try:
            report = json.loads(lines)
        except ValueError:
            said = (done.stderr.strip() or lines or f"exit status {done.returncode}").splitlines()
            report = {"error": said[-1]}
        if "error" in report:
            self.error = " ".join(report["error"].split())
        else:
            self.reports.append(report)

    def times(self):
        """Median over the rounds' medians, and the least of all, in ms."""
        if self.ours:
            laps = [r["stages_ms"]["network"] for r in self.reports]
            return statistics.median(l["median"] for l in laps), min(l["min"] for l in laps)
        return statistics.median(statistics.median(r["ms"]) for r in self.reports), min(min(r["ms"]) for r in self.reports)

    def result(self):
        if self.error:
            return {"peer": self.name, "error": self.error}
        median, least = self.times()
        result = {"peer": self.name, "median_ms": median, "min_ms": least}
        result["load_ms"] = min(r["load_ms"] for r in self.reports)
        if self.ours:
            result["load_median_ms"] = statistics.median(r["load_ms"] for r in self.reports)
            result["peak_rss_bytes"] = max(r["peak_rss_bytes"] for r in self.reports)
            result["isa"], result["graph"] = self.reports[0]["isa"], self.reports[0]["graph"]
        if "version" in self.reports[0]:
            result["version"] = self.reports[0]["version"]
        return result


def rten(arguments):
    """The rten program, or None with a line that says why."""
    target = arguments.target / "rten"
    program = target / "release" / "rten-peer"
    manifest = ROOT / "benches" / "rten" / "Cargo.toml"
    build = ["cargo", "build", "--release", "--quiet", "--manifest-path", manifest, "--target-dir", target]
    try:
        done = subprocess.run([str(part) for part in build], capture_output=True, text=True)
    except OSError as error:
        return None, f"cannot build: {error}"
    return (program, None) if done.returncode == 0 else (None, f"cannot build: {done.stderr.strip().splitlines()[-1]}")


def peers(arguments, path, threads, rten_program):
    release = arguments.target / "release"
    runs = arguments.frames

    def ours(name, file, isa=None):
        command = [arguments.outlierd or release / "outlierd", "bench", "--backbone", file, "--threads", threads,
                   "--frames", runs, "--json"]
        return Peer(name, command, {"OUTLIERD_ISA": isa} if isa else None, ours=True)

    slow = max(2, runs // 5)
    tract = arguments.tract_peer or release / "examples" / "tract_peer"
    listed = [ours("ours", path)]
    listed.append(Peer("onnxruntime", [sys.executable, __file__, ORT, path, runs, threads]))
    listed += [ours(f"ours/{isa}", path, isa) for isa in arguments.isa]
    if not arguments.only_onnxruntime:
        if threads == 1:
            listed.append(Peer("tract", [tract, path, slow]))
        if rten_program:
            listed.append(Peer("rten", [rten_program, path, slow], {"RTEN_NUM_THREADS": str(threads)}))
    if arguments.float:
        listed.append(ours("ours float", arguments.float))
        if threads == 1:
            listed.append(Peer("tract float", [tract, arguments.float, slow]))
    return listed


def measure(arguments, path, threads, rten_program):
    listed = peers(arguments, path, threads, rten_program)
    for _ in range(arguments.rounds):
        for peer in listed:
            peer.run(arguments.timeout)
            time.sleep(arguments.pause)
    return [peer.result() for peer in listed]


def table(results):
    mine = next((r for r in results if r["peer"] == "ours" and "error" not in r), None)
    print(f"  {'':16}{'median ms':>10}{'min ms':>9}{'ours/it':>9}{'by min':>8}{'load ms':>9}{'peak MiB':>10}")
    for r in results:
        if "error" in r:
            print(f"  {r['peer']:16}does not run: {r['error'][:160]}")
            continue
        ratios = f"{mine['median_ms'] / r['median_ms']:9.3f}{mine['min_ms'] / r['min_ms']:8.3f}" if mine else " " * 17
        peak = f"{r['peak_rss_bytes'] / 2**20:10.1f}" if "peak_rss_bytes" in r else ""
        print(f"  {r['peer']:16}{r['median_ms']:10.2f}{r['min_ms']:9.2f}{ratios}{r['load_ms']:9.1f}{peak}")


def goals(arguments, runs):
    """(what, value, goal) of each goal that the runs can say something about."""
    found = []
    for run in runs:
        by_name = {r["peer"]: r for r in run["results"] if "error" not in r}
        label = f"{pathlib.Path(run['model']).name}, {run['threads']} threads"
        mine = by_name.get("ours")
        if mine is None:
            continue
        if "onnxruntime" in by_name:
            found.append((f"{label}: ours / onnxruntime", mine["median_ms"] / by_name["onnxruntime"]["median_ms"], 1.0))
        if "ours/avx2" in by_name and "tract float" in by_name:
            # The float file may be a part of the int8 one: then the ratio is harder than it says.
            ratio = by_name["ours/avx2"]["median_ms"] / by_name["tract float"]["median_ms"]
            found.append((f"{label}: ours/avx2 / tract float", ratio, 0.5))
        found.append((f"{label}: peak MiB", mine["peak_rss_bytes"] / 2**20, 48.0))
        found.append((f"{label}: load ms (median)", mine["load_median_ms"], 150.0))
    return found


def main():
    if sys.argv[1:2] == [ORT]:
        print(json.dumps(onnxruntime_peer(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="int8 ONNX files, QDQ or QOperator")
    parser.add_argument("--float", metavar="FILE", help="a float ONNX file for tract's float path")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--frames", type=int, default=20, help="runs per process (tract and rten: a fifth)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--isa", nargs="*", default=["avx2"], help="other instruction sets for ours")
    parser.add_argument("--only-onnxruntime", action="store_true", help="leave out tract and rten on int8 files")
    parser.add_argument("--cpus", help="pin to these processors, as taskset -c takes them, e.g. 0,1")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two processes")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one process")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target", help="cargo's target folder")
    parser.add_argument("--outlierd", type=pathlib.Path, help="the program (default: TARGET/release/outlierd)")
    parser.add_argument("--tract-peer", type=pathlib.Path, help="default: TARGET/release/examples/tract_peer")
    parser.add_argument("--json", metavar="FILE", help="write all results there")
    parser.add_argument("--goals", action="store_true", help="check ours against what is wanted of it")
    arguments = parser.parse_args()
    if arguments.cpus:
        parts = (part.split("-") for part in arguments.cpus.split(","))
        os.sched_setaffinity(0, {cpu for p in parts for cpu in range(int(p[0]), int(p[-1]) + 1)})
    rten_program, reason = (None, None) if arguments.only_onnxruntime else rten(arguments)
    if reason:
        print(f"rten: {reason}")
    runs = []
    for path in arguments.models:
        for threads in arguments.threads:
            results = measure(arguments, path, threads, rten_program)
            runs.append({"model": path, "threads": threads, "results": results})
            print(f"{pathlib.Path(path).name}, {threads} thread{'s' * (threads > 1)}")
            table(results)
            sys.stdout.flush()
    wanted = goals(arguments, runs)
    missed = [g for g in wanted if g[1] > g[2]]
    if arguments.goals:
        for what, value, goal in wanted:
            print(f"{'ok    ' if value <= goal else 'MISSED'} {what}: {value:.3f}, goal <= {goal}")
    if arguments.json:
        record = {"rounds": arguments.rounds, "frames": arguments.frames, "runs": runs}
        pathlib.Path(arguments.json).write_text(json.dumps(record, indent=1) + "\n")
    return 1 if arguments.goals and missed else 0


if __name__ == "__main__":
    sys.exit(main())
