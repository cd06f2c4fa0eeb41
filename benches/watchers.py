#!/usr/bin/env python3
"""Shows the same frames to outlierd, to Debian's motion and to the article's pipeline in scikit-learn, and counts.

    apt-get install --no-install-recommends motion
    pip install numpy pillow scikit-learn onnxruntime
    benches/watchers.py --backbone resnet50-conv4-qdq.onnx FOLDER...

A FOLDER has train.txt, normal.txt and outlier.txt: lists of pictures, one path a line, relative to the list. All are made
640 x 480 JPEGs first. With --light 0.2 the light of all of them swings by 20 %, once in 40 frames.

- outlierd: `fit` on train, `run` over a folder of the frames, 5 a second, for processor time and memory; `score` of the
  same frames for what is flagged. Once with the embedded network, once with --backbone.
- motion: its defaults, without movies; an MJPEG stream of 5 frames a second, first 100 of train, then normal or outlier.
  Flagged are the runs of `on_motion_detected`, one a frame, but in bursts of a second.
- scikit-learn: features of --backbone by ONNX Runtime; StandardScaler, PCA (0.95 of the variance,
  whitened), GaussianMixture (components by BIC), fitted on the first four fifths of train; flagged is what scores below
  99 % of the last fifth.

The backbone takes Keras' pictures (BGR, channel means subtracted, stretched to 224 x 224).

Printed: flagged of the normal frames, flagged of the outliers, processor time a frame and peak memory while watching;
outlierd's with its start, scikit-learn's without.
"""

import argparse
import http.server
import json
import math
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time

FPS = 5
WARM_UP = 100
SKLEARN = "--scikit-learn"


def listed(folder, name):
    for file in (folder / f"{name}.txt", folder / f"test-{name}.txt"):
        if file.exists():
            return [folder / line for line in file.read_text().splitlines() if line]
    sys.exit(f"{folder}: no {name}.txt")


def frames(folder, out, light):
    """The frames as files out/NAME/00001.jpg and so on."""
    from PIL import Image, ImageEnhance

    made = {}
    for name in ("train", "normal", "outlier"):
        (out / name).mkdir(parents=True)
        made[name] = []
        for index, path in enumerate(listed(folder, name)):
            picture = Image.open(path).convert("RGB").resize((640, 480), Image.Resampling.BICUBIC)
            if light:
                picture = ImageEnhance.Brightness(picture).enhance(1 + light * math.sin(2 * math.pi * index / 40))
            made[name].append(out / name / f"{index + 1:05}.jpg")
            picture.save(made[name][-1], quality=92)
    return made


def measured(command):
    """Runs a command to its end: (processor seconds, peak bytes)."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]}: {said}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def outlierd(program, made, work, backbone):
    model = work / "model.outlierd"
    fit = [program, "fit", "--normal", work / "train", "-o", model]
    subprocess.run(fit + (["--backbone", backbone, "--input", "caffe"] if backbone else []), check=True, capture_output=True)
    flagged, seconds, peak = {}, 0.0, 0
    for name in ("normal", "outlier"):
        lines = subprocess.run([program, "score", "--model", model, "--json", work / name], check=True,
                               capture_output=True, text=True).stdout.splitlines()
        flagged[name] = sum(json.loads(line)["outlier"] for line in lines) / len(lines)
        config = work / f"{name}.toml"
        config.write_text(f'[camera]\nsource = "folder:{work / name}"\ninterval = "{1000 // FPS}ms"\n'
                          f'[model]\npath = "{model}"\ncache = ""\n[observe]\nsocket = "{work / name}.sock"\n'
                          f'[events]\nlog = "{work / name}.jsonl"\nsnapshots = "{work / name}-snapshots"\n')
        spent, most = measured([program, "run", "-c", config])
        seconds, peak = seconds + spent, max(peak, most)
    return flagged, seconds / (len(made["normal"]) + len(made["outlier"])), peak


class Stream(http.server.BaseHTTPRequestHandler):
    """An MJPEG stream of `paths`, once; `sent` has the time of each."""

    paths, sent, over = [], [], threading.Event()

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        begin, sent = time.monotonic(), []
        try:
            for index, path in enumerate(Stream.paths):
                time.sleep(max(0.0, begin + index / FPS - time.monotonic()))
                picture = path.read_bytes()
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture))
                self.wfile.write(picture + b"\r\n")
                sent.append(time.time())
            time.sleep(1)
        except OSError:
            return  # motion looks first, then comes again
        Stream.sent = sent
        Stream.over.set()


def motion(made, work):
    flagged, seconds, count, peak = {}, 0.0, 0, 0
    for name in ("normal", "outlier"):
        Stream.paths, Stream.sent, Stream.over = made["train"][-WARM_UP:] + made[name], [], threading.Event()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stamps, config = work / f"{name}.stamps", work / f"{name}.conf"
        stamps.write_text("")
        config.write_text(f"daemon off\nsetup_mode off\nnetcam_url http://127.0.0.1:{server.server_address[1]}/\n"
                          f"width 640\nheight 480\nframerate {FPS}\ntarget_dir {work}\nmovie_output off\npicture_output off\n"
                          f"webcontrol_port 0\nstream_port 0\non_motion_detected date +%s.%N >> {stamps}\n")
        process = subprocess.Popen(["motion", "-n", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not Stream.over.wait(60 + len(Stream.paths) / FPS * 2):
            sys.exit("motion read no stream")
        # Of the process alone: what it runs does not count.
        fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        peak = max(peak, int(status.partition("VmHWM:")[2].split()[0]) * 1024)
        process.send_signal(signal.SIGTERM)
        process.wait()
        server.shutdown()
        count += len(Stream.paths)
        begin = Stream.sent[len(Stream.paths) - len(made[name])]
        told = sum(float(stamp) >= begin for stamp in stamps.read_text().split())
        flagged[name] = min(1.0, told / len(made[name]))
    return flagged, seconds / count, peak


def features(session, paths):
    import numpy
    from PIL import Image

    found = []
    for path in paths:
        picture = Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        values = numpy.asarray(picture)[:, :, ::-1] - numpy.array([103.939, 116.779, 123.68])
        values = values.astype(numpy.float32).transpose(2, 0, 1)[None]
        found.append(session.run(None, {session.get_inputs()[0].name: values})[0].reshape(-1))
    return numpy.array(found)


def scikit_learn(work, backbone, phase):
    """One phase in a process of its own: fits, or watches with what was fitted."""
    import numpy
    import onnxruntime
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(backbone, options, providers=["CPUExecutionProvider"])
    paths = sorted((work / phase).iterdir())
    if phase != "train":
        pipeline, threshold = pickle.loads((work / "pipeline").read_bytes())
        begin = time.process_time()
        scores = numpy.array([pipeline.score_samples(features(session, [path]))[0] for path in paths])
        seen = {"flagged": float(numpy.mean(scores < threshold)), "seconds": time.process_time() - begin}
        (work / f"{phase}.json").write_text(json.dumps(seen))
        return
    train = features(session, paths)

    fitted, held_out = numpy.split(train, [len(train) * 4 // 5])
    whitened = make_pipeline(StandardScaler(), PCA(0.95, whiten=True, random_state=0))
    values = whitened.fit_transform(fitted)
    mixtures = [GaussianMixture(n, covariance_type="diag", reg_covar=1e-3, random_state=0).fit(values) for n in (1, 2, 4, 8)]
    pipeline = make_pipeline(whitened, min(mixtures, key=lambda mixture: mixture.bic(values)))
    (work / "pipeline").write_bytes(pickle.dumps((pipeline, numpy.quantile(pipeline.score_samples(held_out), 0.01))))


def scikit_learn_peer(made, work, backbone):
    command = [sys.executable, __file__, SKLEARN, work, backbone]
    measured(command + ["train"])
    peak = max(measured(command + [name])[1] for name in ("normal", "outlier"))
    seen = {name: json.loads((work / f"{name}.json").read_text()) for name in ("normal", "outlier")}
    seconds = sum(phase["seconds"] for phase in seen.values()) / (len(made["normal"]) + len(made["outlier"]))
    return {name: phase["flagged"] for name, phase in seen.items()}, seconds, peak


def main():
    if sys.argv[1:2] == [SKLEARN]:
        return scikit_learn(pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--backbone", type=pathlib.Path, required=True, help="ends at conv4, averaged over places")
    parser.add_argument("--light", type=float, default=0.0, metavar="SHARE")
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--outlierd", type=pathlib.Path, default=root / "target" / "release" / "outlierd")
    arguments = parser.parse_args()
    backbone = arguments.backbone.resolve()
    for folder in arguments.folders:
        with tempfile.TemporaryDirectory() as work:
            work = pathlib.Path(work)
            made = frames(folder.resolve(), work, arguments.light)
            print(f"{folder.name}: {', '.join(f'{len(paths)} {name}' for name, paths in made.items())}", flush=True)
            watchers = {
                "outlierd": lambda: outlierd(arguments.outlierd, made, work, None),
                "outlierd, ResNet-50": lambda: outlierd(arguments.outlierd, made, work, backbone),
                "motion": lambda: motion(made, work),
                "scikit-learn": lambda: scikit_learn_peer(made, work, backbone),
            }
            for name, watch in watchers.items():
                flagged, seconds, peak = watch()
                print(f"  {name:20} normal {flagged['normal']:6.1%}  outliers {flagged['outlier']:6.1%}"
                      f"  {seconds * 1e3:7.1f} ms a frame  {peak / 2**20:7.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
