"""What the documents say: the results in README.md are measured, the options exist."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DENOISER, ROOT, VAE, load, run

README = (ROOT / "README.md").read_text()
NUMBER = r"(?<![\w./-])-?\d+(?:,\d{3})*(?:\.\d+)?(?![\w])"


def numbers(text):
    """Return numbers as {text: value}; those in commands and addresses are skipped."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    return {found: float(found.replace(",", "")) for found in re.findall(NUMBER, text)}


def test_every_figure_is_among_the_results():
    """RESULTS.md is made of results.jsonl: see test_benchmarks.py."""
    section = README.partition("\n## Results\n")[2].partition("\n## ")[0]
    measured = numbers((ROOT / "benchmarks" / "RESULTS.md").read_text()).values()
    figures = {text: value for text, value in numbers(section).items() if "." in text}
    assert len(figures) > 15
    for text, value in figures.items():
        digits = len(text.partition(".")[2])
        assert any(abs(each - value) <= 0.5001 * 10**-digits for each in measured), text
    shares = set(re.findall(r"1/\d+", README))
    assert len(shares) == 2
    assert shares <= set(re.findall(r"1/\d+", (ROOT / "benchmarks/RESULTS.md").read_text()))


def test_memory_and_times_of_the_readme():
    """The bound on memory holds for every run; times are those of default runs on both cores."""
    text = (ROOT / "benchmarks" / "results.jsonl").read_text()
    everything = [json.loads(line) for line in text.splitlines()]
    lines = [line for line in everything if line["part"] in ("ours", "long")]
    bound = float(re.search(r"Memory stays under ([\d.]+) GB", README).group(1))
    assert 0.8 * bound < max(line["memory"] for line in lines if line["memory"]) < bound
    ours = [x for x in lines if x["part"] == "ours" and x["machine"]["threads"] == 2]
    assert len(ours) >= 6
    seconds = [line["metrics"]["train_seconds"] for line in ours]
    (said,) = set(re.findall(r"(\d) to (\d) minutes each", README))  # twice the same
    assert said == (f"{min(seconds) / 60:.0f}", f"{max(seconds) / 60:.0f}")
    rest = [x["process_seconds"] - x["metrics"]["train_seconds"] for x in ours]
    said = re.search(r"pictures take (\d+)\s+to (\d+) seconds more", README).groups()
    assert said == (f"{min(rest):.0f}", f"{max(rest):.0f}")
    minutes = re.search(r"takes about\s+(\d+) minutes at that speed", README).group(1)
    speed = {x["program"]: x["images_per_second"] for x in everything if x["part"] == "speed"}
    assert minutes == f"{48 * 55000 / speed[VAE.removesuffix('.py')] / 60:.0f}"


def test_no_document_has_a_gap():
    """Such as a name between @ signs, which stands for a result that is still to come."""
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]:
        assert not re.search(r"@[A-Z0-9]+@|TODO|TBD", path.read_text()), path


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
        expected = {"None": "", "False": "off", "1000000000": "all"}.get(str(value), str(value))
        assert said in (expected, f"{value:g}" if type(value) is float else expected), name


@pytest.mark.parametrize("script", [DENOISER, VAE])
def test_expected_results_are_the_measured_ones(script, tmp_path, capsys):
    """A default run prints mean and standard deviation of results.jsonl; another does not."""
    lines = (ROOT / "benchmarks" / "results.jsonl").read_text().splitlines()
    lines = [line for line in map(json.loads, lines) if line["part"] == "ours"]
    measured = [line["metrics"] for line in lines if line["program"] == script.removesuffix(".py")]
    assert len(measured) >= 3
    module = load(script)
    folders = ["--model-dir", str(tmp_path), "--seed", "1"]
    finished = SimpleNamespace(history={}, seconds=1.0, parameters=1)
    module.report(module.parse_options(folders), measured[0], finished)
    table = capsys.readouterr().out
    for name, *_ in module.METRICS:
        values = [metrics[name.lower().replace(" ", "_")] for metrics in measured]
        digits = 2 if abs(values[0]) > 1 else 4
        expected = f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"
        assert re.search(rf"^  {name} .* expected {re.escape(expected)}$", table, re.MULTILINE), (
            name
        )
    module.report(module.parse_options([*folders, "--epochs", "3"]), measured[0], finished)
    assert " expected " not in capsys.readouterr().out


@pytest.mark.parametrize("script", [DENOISER, VAE])
def test_help_and_version(script, tmp_path):
    text = run(script, "--help", cwd=tmp_path).stdout
    for part in ("data:", "training:", "output:", "hardware:", "examples:"):
        assert f"\n{part}\n" in text
    assert "training images, the first N, 10 to all (default: all)" in " ".join(text.split())
    assert "None" not in text and text.count(f"    python {script}") >= 3
    version = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M).group(1)
    assert run(script, "--version", cwd=tmp_path).stdout == f"{version}\n"
    assert f"## {version}, " in (ROOT / "CHANGELOG.md").read_text()
