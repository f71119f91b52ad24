"""Writes the tables of RESULTS.md from results.jsonl: python benchmarks/tables.py

A table stands in RESULTS.md between a line <!-- table: NAME --> and a line <!-- end -->; the text
around it is written by hand. A table of results of two versions of a script is an error.
"""

import re
import statistics
import sys

import results
from results import CRC, DENOISER, HERE, VAE

PAGE = HERE / "RESULTS.md"
MARKED = re.compile(r"(<!-- table: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
SEEDS = (0, 1, 2)  # of the default runs whose means are reported
DEVIATIONS = 3  # of an expected range, on both sides of the mean
NAMES = {
    VAE: f"{VAE}.py",
    DENOISER: f"{DENOISER}.py",
    "keras-vae": "Keras VAE example",
    "own-keras-vae": "Keras VAE example",
    "own-five-level-vae": "five-level VAE",
    "keras-denoiser": "Keras denoising example",
}
IMAGES = {  # of a whole training
    VAE: 12 * 55_000,
    DENOISER: 8 * 55_000,
    "keras-vae": 30 * 60_000,
    "keras-denoiser": 100 * 60_000,
}

# ---- Cells ---------------------------------------------------------------------------------------


def mean(values, form):
    """Return the mean of values as text and, where they differ, their standard deviation."""
    text = f"{statistics.fmean(values):{form}}"
    return f"{text} ± {statistics.stdev(values):{form}}" if len(set(values)) > 1 else text


def table(head, rows):
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def grouped(lines, labels, columns):
    """Return a table with a row for each label of lines, and means of their metrics.

    Args:
        labels: {head of a column: function of a line}.
        columns: {key in the metrics: (head of the column, format)}.
    """
    groups = {}
    for line in lines:
        label = tuple(label_of(line) for label_of in labels.values())
        groups.setdefault(label, []).append(line["metrics"])
    rows = []
    for label, found in groups.items():
        row, counts = [*label], [0]
        for key, (_, form) in columns.items():
            values = [metrics[key] for metrics in found if metrics.get(key) is not None]
            counts.append(len(values))
            row.append(mean(values, form) if values else "")
        rows.append([*row, max(counts)])
    return table([*labels, *(head for head, _ in columns.values()), "runs"], rows)


def name_of(line):
    return NAMES.get(line["program"], line["program"])


def recipe_of(line):
    epochs = line["metrics"]["epochs"]
    recipes = {"small": "ours, at most the example's parameters"}
    recipes |= dict.fromkeys(("default", "long"), f"ours, {epochs} epochs")
    return recipes.get(line["part"], name_of(line))


def command_of(line):
    words = ["python", name_of(line), *line["arguments"], "--seed N"]
    is_plain = line["part"] in ("default", "long")
    return f"`{' '.join(words) if is_plain else 'python benchmarks/run.py ' + line['part']}`"


def options_of(line):
    return f"`{' '.join(line['arguments'])}`"


def case_of(line):
    return line["case"]


def data_of(line):
    return line["data"].rpartition("/")[2].removesuffix(".npz")


def dimensions_of(line):
    return line["metrics"]["latent_dim"]


def noise_of(line):
    return " to ".join(line["arguments"][1:])


def threads_of(line):
    return line["machine"]["threads"]


# ---- Lines ---------------------------------------------------------------------------------------


def reported(lines):
    """Return lines without the default runs that only the expected results have."""
    return [
        line
        for line in lines
        if line["part"] != "default" or (line["case"] == "threads: 2" and line["seed"] in SEEDS)
    ]


def by_case(lines):
    """Return lines whose metrics have the case as the name of what was measured."""
    pivoted = []
    for line in lines:
        value = next(value for key, value in line["metrics"].items() if key in ("psnr", "error"))
        pivoted.append(line | {"metrics": {line["case"]: value}})
    return pivoted


def by_training(lines):
    """Return lines of noisy-only, whose case is "pictures: training", with a metric for each."""
    pivoted = []
    for line in lines:
        case, _, training = line["case"].partition(": ")
        found = line["metrics"]
        metrics = {training: found["psnr"]}
        if training == "noisy images":
            metrics |= {"noisy_psnr": found["noisy_psnr"], "flips": found.get("psnr_of_flips")}
        pivoted.append(line | {"case": case, "metrics": metrics})
    return pivoted


def with_costs(lines):
    """Return the lines of whole processes, with their time and memory among the metrics."""
    found = []
    for line in reported(lines):
        if line.get("process_seconds"):
            rest = line["process_seconds"] - line["metrics"]["train_seconds"]
            costs = {"memory": line["memory"], "rest": rest}
            found.append(line | {"metrics": line["metrics"] | costs})
    return found


def range_of(values):
    """Return the range to expect: the mean of all runs, give or take three deviations."""
    middle, margin = statistics.fmean(values), DEVIATIONS * statistics.stdev(values)
    return middle - margin, middle + margin


def expected(lines):
    """Return the table of the default runs' metrics and the ranges that the scripts print."""
    rows = []
    for script, columns in ((DENOISER, DENOISER_COLUMNS), (VAE, VAE_COLUMNS)):
        for key, (head, form) in columns.items():
            values = [line["metrics"][key] for line in lines if line["program"] == script]
            numbers = [statistics.fmean(values), statistics.stdev(values), min(values), max(values)]
            low, high = range_of(values)
            cells = [f"{number:{form}}" for number in numbers]
            rows.append([NAMES[script], head, *cells, f"{low:{form}} to {high:{form}}"])
    return table(["", "metric", "mean", "deviation", "minimum", "maximum", "expected"], rows)


def speed(lines):
    """Return the table of training speed, and of what a whole training takes at that speed."""
    rows = []
    for line in lines:
        rate, slow, fast = line["metrics"].values()
        cells = [f"{rate:,.0f}", f"{slow:,.0f} to {fast:,.0f}"]
        count = IMAGES[line["program"]]
        rows.append([name_of(line), *cells, f"{count:,}", f"{count / rate:.0f} s"])
    heads = ["", "images a second", "of seven rounds", "images of a training", "its time"]
    return table(heads, rows)


def versions(lines):
    """Return the table of what made the results: scripts, commits and machines."""
    groups = {}
    for line in lines:
        machine = line["machine"]
        packages = [
            f"{name} {machine[name]}" for name in ("python", "tensorflow", "keras", "numpy")
        ]
        key = line["script"], line.get("crc", "unknown"), ", ".join(packages)
        groups.setdefault(key, []).append(line)
    rows = []
    for (script, crc, packages), found in groups.items():
        commits = ", ".join(sorted({line.get("commit", "1.7.0 or before") for line in found}))
        dates = sorted({line["date"] for line in found})
        parts = ", ".join(sorted({line["part"] for line in found}))
        dates = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
        processors = ", ".join(sorted({line["machine"]["processor"] for line in found}))
        rows.append([script, crc, commits, processors, packages, dates, parts])
    heads = ["script", "CRC-32", "commits", "processors", "versions", "dates", "parts"]
    return table(heads, rows)


# ---- Tables --------------------------------------------------------------------------------------

VAE_COLUMNS = {
    "negative_elbo": ("negative ELBO", ".2f"),
    "reconstruction": ("reconstruction", ".2f"),
    "kl": ("KL", ".2f"),
    "negative_iwae_bound": ("negative IWAE bound", ".2f"),
}
DENOISER_COLUMNS = {
    "psnr": ("PSNR, dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "mse": ("MSE", ".5f"),
    "bce": ("BCE", ".4f"),
    "noisy_psnr": ("noisy PSNR, dB", ".2f"),
}
SIZES = {"parameters": ("parameters", ",.0f"), "epochs": ("epochs", ",.0f")}
DIMENSIONS = VAE_COLUMNS | {"active_dimensions": ("active", ".0f")} | SIZES
LEVELS = {level: (level, ".2f") for level in ("0.1", "0.3", "0.5", "0.7", "0.9")}
DOCUMENTS = {"psnr": ("PSNR, dB", ".2f"), "ssim": ("SSIM", ".3f"), "cer": ("CER", ".1%")}
NOISY_ONLY = {
    "noisy_psnr": ("before", ".2f"),
    "noisy images": ("noisy images alone", ".2f"),
    "flips": ("the same, mean over flips", ".2f"),
    "clean images": ("clean images, or pairs", ".2f"),
    "BM3D": ("BM3D", ".2f"),
    "non-local means": ("non-local means", ".2f"),
}
OWN = {
    "negative_elbo": ("negative ELBO", ".0f"),
    "psnr": ("PSNR, dB", ".2f"),
    "best_validation": ("validation, best epoch", ".0f"),
    "last_validation": ("validation, last epoch", ".0f"),
    "train_seconds": ("seconds", ".0f"),
}
ENCODERS = ("random weights", "clean images", "Gaussian noise", "masking", "salt-and-pepper")
COSTS = {
    "train_seconds": ("training, s", ".0f"),
    "rest": ("the rest, s", ".0f"),
    "memory": ("peak memory, GB", ".2f"),
}
MODEL, RECIPE = {"model": name_of}, {"model": recipe_of, "command": command_of}
METHODS = {"case": case_of, "of": name_of}

TABLES = {  # name: parts, script if of one alone, choice of lines, labels, columns
    "vae": (["default", "small", "keras-vae"], VAE, reported, RECIPE, VAE_COLUMNS | SIZES),
    "long": (["long"], VAE, list, RECIPE, VAE_COLUMNS | SIZES),
    "denoiser": (
        ["default", "small", "keras-denoiser"],
        DENOISER,
        reported,
        RECIPE,
        DENOISER_COLUMNS | SIZES,
    ),
    "dimensions": (["dimensions"], VAE, list, {"dimensions": dimensions_of}, DIMENSIONS),
    "binarized": (["binarized"], VAE, list, {"dimensions": dimensions_of}, DIMENSIONS),
    "levels": (["levels"], DENOISER, by_case, {"trained on": noise_of}, LEVELS),
    "corruptions": (["corruptions"], DENOISER, list, {"options": options_of}, DENOISER_COLUMNS),
    "photograph": (["photograph"], DENOISER, list, MODEL, {"psnr": ("PSNR, dB", ".2f")}),
    "noisy-only": (["noisy-only"], DENOISER, by_training, {"PSNR in dB": case_of}, NOISY_ONLY),
    "documents": (["documents"], DENOISER, list, MODEL, DOCUMENTS),
    "own": (["own"], VAE, list, {"pictures": case_of} | MODEL, OWN | SIZES),
    "representations": (
        ["representations"],
        None,
        list,
        METHODS,
        {"accuracy": ("accuracy", ".1%")},
    ),
    "one-class": (["one-class"], VAE, list, METHODS, {"auc": ("ROC AUC of ten digits", ".3f")}),
    "pretraining": (
        ["pretraining"],
        DENOISER,
        by_case,
        {"labels": data_of},
        {name: (name, ".2%") for name in ENCODERS},
    ),
    "cost": (["default"], None, with_costs, MODEL | {"threads": threads_of}, COSTS),
    "expected": (["default"], None, expected, None, None),
    "speed": (["speed"], None, speed, None, None),
}


def lines_of(parts, script=None):
    """Return the results of parts, in their order."""
    lines = [line for part in parts for line in results.read() if line["part"] == part]
    return [line for line in lines if script in (None, line["script"])]


def need_one_version(name, lines):
    """End the command if rows of a table are of two versions of a script."""
    for script in CRC:
        ours = [line for line in lines if line["program"] == script]
        if len({line.get("crc") for line in ours}) > 1:
            old = dict.fromkeys(line["part"] for line in ours if line.get("crc") != CRC[script])
            text = f"error: table {name} has results of two versions of {script}.py"
            print(f"{text}; run: python benchmarks/run.py {' '.join(old)}", file=sys.stderr)
            sys.exit(2)


def make_table(name):
    """Return a table by its name, or a line that says which part has not been measured yet."""
    if name == "versions":
        return versions(results.read())
    parts, script, choose, labels, columns = TABLES[name]
    lines = lines_of(parts, script)
    if not any(line["part"] == parts[0] for line in lines):
        return f"Not measured yet: `python benchmarks/run.py {parts[0]}`."
    need_one_version(name, lines)
    chosen = choose(lines)
    return chosen if labels is None else grouped(chosen, labels, columns)


def filled(text):
    """Return the text of a page with its tables made anew."""
    return MARKED.sub(lambda match: f"{match[1]}{make_table(match[2])}\n{match[3]}", text)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
    print(f"wrote the tables of {PAGE}")
