"""What the documents say: the figures of README.md are measured, the options exist."""

import re

import pytest
from conftest import DENOISER, ROOT, VAE, load

README = (ROOT / "README.md").read_text()
NUMBER = r"(?<![\w./-])-?\d+(?:,\d{3})*(?:\.\d+)?(?![\w])"


def numbers(text):
    """Return numbers as {text: value}; those in commands and addresses are left out."""
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
    shares = set(re.findall(r"1/\d+", section))
    assert shares and shares <= set(
        re.findall(r"1/\d+", (ROOT / "benchmarks/RESULTS.md").read_text())
    )


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
