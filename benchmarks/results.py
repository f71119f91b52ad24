"""The lines of results.jsonl, each with the commit, the versions and the machine that made it."""

import json
import os
import platform
import re
import subprocess
import time
import zlib
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FILE = HERE / "results.jsonl"
DENOISER, VAE = "StackedDenoisingAutoEncoder", "VariationalAutoEncoder_tf2"
PATHS = {name: ROOT / f"{name}.py" for name in (DENOISER, VAE)}
RANGE = re.compile(rb'"[\d.]+ to [\d.]+"')  # that a script prints, and that follows from results
KEY = ("part", "program", "data", "case", "arguments", "seed")  # tells lines apart
THREADS = 2  # of all measurements, unless a part says otherwise


def crc_of(script):
    """Return the CRC-32 of a script without its RANGEs, as 8 hexadecimal digits."""
    return f"{zlib.crc32(RANGE.sub(b'', PATHS[script].read_bytes())):08x}"


CRC = {script: crc_of(script) for script in PATHS}  # at the start
BYTES = {script: path.read_bytes() for script, path in PATHS.items()}  # at the start, too


def git(*words):
    """Return what a git command prints; nothing outside a clone."""
    process = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return process.stdout.strip()


def commit():
    """Return the commit of the working tree, with "-dirty" where its Python files differ."""
    name = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return f"{name}-dirty" if git("status", "--porcelain", "--", "*.py") else name


COMMIT = commit()  # at the start, too


def machine(threads):
    """Return the processor, the number of threads and the versions of packages."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    found = {"processor": names[0] if names else platform.processor(), "cores": os.cpu_count()}
    packages = {name: version(name) for name in ("tensorflow", "keras", "numpy")}
    return found | {"threads": threads, "python": platform.python_version()} | packages


def key_of(line):
    return json.dumps([line.get(name) for name in KEY])


def read():
    """Return the newest line of each key."""
    newest = {}
    texts = FILE.read_text().splitlines() if FILE.exists() else []
    for text in texts:
        line = json.loads(text)
        newest[key_of(line)] = line
    return [*newest.values()]


def find(**key):
    """Return the line of a key, or None; that of a script must be of its present CRC-32."""
    for line in read():
        is_present = line["program"] not in CRC or line.get("crc") == CRC[line["program"]]
        if key_of(line) == key_of(key) and is_present:
            return line
    return None


def keep(script, metrics, more=None, threads=THREADS, **key):
    """Add a line; `script` is the one whose model, or whose data and evaluation, was used."""
    versions = {"script": script, "crc": CRC[script], "commit": COMMIT}
    line = key | {"metrics": metrics} | (more or {}) | versions
    line |= {"machine": machine(threads), "date": time.strftime("%Y-%m-%d")}
    with FILE.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print("kept:", key, metrics, flush=True)
    return line


def once(script, measure, **key):
    """Return the metrics of a key; a function measures them if they are not known."""
    line = find(**key) or keep(script, measure(), **key)
    return line["metrics"]
