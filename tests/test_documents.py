"""What the documents say: the results in README.md are measured, the options exist."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DENOISER, ROOT, VAE, load, run

sys.path.insert(0, str(ROOT / "benchmarks"))
import tables

README = (ROOT / "README.md").read_text()
NUMBER = r"(?<![\w./-])-?\d+(?:,\d{3})*(?:\.\d+)?(?![\w])"


def numbers(text):
    """Return numbers as {text: value}; those in commands and addresses are skipped."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    return {found: float(found.replace(",", "")) for found in re.findall(NUMBER, text)}


def test_every_figure_is_among_the_results():
    """The tables of RESULTS.md are made of results.jsonl: see test_benchmarks.py."""
    section = README.partition("\n## Results\n")[2].partition("\n## ")[0]
    measured = numbers((ROOT / "benchmarks" / "RESULTS.md").read_text()).values()
    figures = {text: value for text, value in numbers(section).items() if "." in text}
    assert len(figures) > 15
    for text, value in figures.items():
        digits = len(text.partition(".")[2])
        assert any(abs(each - value) <= 0.5001 * 10**-digits for each in measured), text


def test_memory_and_times_of_the_readme():
    """The bound on memory holds for every run; times are those of default runs on both cores."""
    text = (ROOT / "benchmarks" / "results.jsonl").read_text()
    everything = [json.loads(line) for line in text.splitlines()]
    lines = [line for line in everything if line["part"] in ("default", "long")]
    bound = float(re.search(r"Memory stays under ([\d.]+) GB", README).group(1))
    assert 0.8 * bound < max(line["memory"] for line in lines if "memory" in line) < bound
    ours = [x for x in tables.reported(lines) if x["part"] == "default"]
    assert len(ours) == 6
    seconds = [line["metrics"]["train_seconds"] for line in ours]
    (said,) = re.findall(r"(\d) to (\d) minutes each", README)
    assert said == (f"{min(seconds) / 60:.0f}", f"{max(seconds) / 60:.0f}")
    speeds = [line for line in everything if line["part"] == "speed"]
    speed = {line["program"]: line["metrics"]["images_per_second"] for line in speeds}
    images = {"keras-denoiser": 100 * 60000, "keras-vae": 30 * 60000}  # of all epochs
    for script in (DENOISER, VAE):
        images[script.removesuffix(".py")] = load(script).EPOCHS * 55000
    expected = {f"{count / speed[name]:.0f}" for name, count in images.items()}
    assert set(re.findall(r"(\d+) s\b", README)) == expected


def test_commands_of_the_documents_exist():
    """Every example and benchmark that they name is there, and --help has the options."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
    text = "\n".join(page.read_text() for page in pages).replace("\\\n", " ")
    words = {}
    for name, rest in re.findall(r"python ((?:examples|benchmarks)/\w+\.py)([^`\n#]*)", text):
        words.setdefault(name, set()).update(rest.split())
    assert len(words) >= 10
    for name, found in words.items():
        assert (ROOT / name).is_file(), name
        if name.startswith("examples/"):
            commands = ["train", "degrade"] if "clean_documents" in name else [""]
            texts = [run(name, *word.split(), "--help", cwd=ROOT).stdout for word in commands]
            help_text = "".join(texts)
            options = {word for word in found if word.startswith("--")}
            assert all(re.search(rf"{option}\b", help_text) for option in options), name


@pytest.mark.parametrize("script", [DENOISER, VAE])
def test_the_table_of_options_has_the_defaults(script):
    text = (ROOT / "docs" / "running.md").read_text()
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in re.findall(r"^\| `--.*", text, re.M)
    ]
    table = {row[0].strip("`").split()[0]: row[1 + (script == VAE)].strip("`") for row in rows}
    module = load(script)
    options = vars(module.parse_options([]))
    assert set(options) < {name[2:].replace("-", "_") for name in table}
    for name, value in options.items():
        said = table["--" + name.replace("_", "-")]
        if name == "limit":
            assert value is None and said == "all"
        elif value is None:
            assert said == ""
        elif value is False:
            assert said == "off"
        else:
            assert said in (str(value), f"{value:g}" if type(value) is float else ""), name


@pytest.mark.parametrize("script", [DENOISER, VAE])
def test_expected_results_are_the_measured_ones(script, tmp_path, capsys):
    """A default run prints the ranges of RESULTS.md, which hold all its runs; another does not."""
    runs = tables.lines_of(["default"], script.removesuffix(".py"))
    assert len(runs) == 10
    module = load(script)
    folders = ["--model-dir", str(tmp_path), "--seed", "1"]
    run = SimpleNamespace(seconds=3, history={"loss": [3.0, 2.0]}, best_epoch=lambda: 2)
    module.print_results(runs[0]["metrics"], run, module.parse_options(folders))
    table = capsys.readouterr().out
    assert "validation loss still falling at the end" in table
    for key, name, *_, expected in module.METRICS:
        if not expected:  # a metric of another kind of run
            assert key not in runs[0]["metrics"] and f"  {name} " not in table
            continue
        assert re.search(rf"^  {name} .* expected {re.escape(expected)}$", table, re.MULTILINE)
        low, high = map(float, expected.split(" to "))
        digit = 10.0 ** -len(expected.partition(" to ")[0].partition(".")[2])
        values = [run["metrics"][key] for run in runs]
        middle, deviation = np.mean(values), np.std(values, ddof=1)
        bounds = (middle - 3 * deviation, middle + 3 * deviation)
        assert bounds == pytest.approx((low, high), abs=0.51 * digit), name
        assert tables.range_of(values) == pytest.approx(bounds), name
        assert all(low <= run["metrics"][key] <= high for run in runs), name
    run = SimpleNamespace(seconds=3, history={"loss": [3.0, 2.0, 1.0]}, best_epoch=lambda: 2)
    options = module.parse_options([*folders, "--epochs", "3"])
    module.print_results(runs[0]["metrics"], run, options)
    report = capsys.readouterr().out
    assert " expected " not in report
    assert "lowest validation loss after epoch 2 of 3: its weights are saved\n" in report


@pytest.mark.parametrize("script", [DENOISER, VAE])
def test_help_and_version(script, tmp_path):
    text = run(script, "--help", cwd=tmp_path).stdout
    assert "None" not in text and "False" not in text
    options = vars(load(script).parse_options([]))
    for name, value in options.items():
        (said,) = re.findall(rf"\n  --{name.replace('_', '-')}\b[^\n]*(?:\n {{10}}.*)*", text)
        if type(value) in (int, float):
            assert re.search(rf"\(default: {value:g}\)", " ".join(said.split())), said
    version = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M).group(1)
    assert run(script, "--version", cwd=tmp_path).stdout == f"{version}\n"
    assert f"## {version}, " in (ROOT / "CHANGELOG.md").read_text()
