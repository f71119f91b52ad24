"""Writes RESULTS.md and its picture from results.jsonl: python benchmarks/tables.py."""

import math
import statistics
from collections import Counter

from matplotlib.figure import Figure
from run import BASELINES, DENOISER, HERE, LEVELS, LONG, SCRIPTS, VAE, results

NAMES = {
    "keras-vae": "Keras VAE example",
    "keras-denoiser": "Keras denoising example",
    "older-denoiser": "older 5x5x64 denoiser",
    "five-level-vae": "five-level VAE with batch normalization",
    VAE: f"{VAE}.py",
    DENOISER: f"{DENOISER}.py",
}
METRICS = {  # of each script: head of the column and decimals to show
    VAE: {
        "negative_elbo": ("negative ELBO", 2),
        "reconstruction": ("reconstruction", 2),
        "kl": ("KL", 2),
        "negative_iwae_bound": ("negative IWAE bound, K = 50", 2),
    },
    DENOISER: {
        "psnr": ("PSNR, dB", 2),
        "ssim": ("SSIM", 4),
        "mse": ("squared error", 5),
        "bce": ("cross-entropy", 4),
    },
}
EXPECTED = {  # of each script: the metrics that it prints beside their expected range
    VAE: METRICS[VAE],
    DENOISER: {**METRICS[DENOISER], "noisy_psnr": ("PSNR of the noisy input, dB", 2)},
}
EXAMPLES = {VAE: "keras-vae", DENOISER: "keras-denoiser"}
DEVIATIONS = 3  # of an expected range, on both sides of the mean


def picked(part, program=None):
    """Return the results of a part, and of a program where it is given, in order of their seeds."""
    lines = [x for x in results() if x["part"] == part and program in (None, x.get("program"))]
    return sorted(lines, key=lambda line: line.get("seed", 0))


def by_arguments(lines):
    """Return {arguments: results with these}."""
    groups = {}
    for line in lines:
        groups.setdefault(tuple(line["arguments"]), []).append(line)
    return groups


def mean(values, digits):
    """Return the mean of values as text and, of more than one, their standard deviation."""
    values = list(values)
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def table(head, rows):
    """Return a Markdown table; the head is one string."""
    head = head.split(" | ")
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def rates():
    """Return {program: images a second in training} on the machine that was measured last."""
    return {line["program"]: line["images_per_second"] for line in picked("speed")}


def metrics_table(kind):
    """Return the table of one script's test metrics beside those of its baselines."""
    columns, rows = METRICS[kind], []

    def add_row(name, lines, command):
        metrics = [line["metrics"] for line in lines]
        cells = [mean([m[key] for m in metrics], places) for key, (_, places) in columns.items()]
        size, epochs = metrics[0]["parameters"], metrics[0]["epochs"]
        rows.append([name, *cells, f"{size:,}", epochs, len(lines), f"`{command}`"])

    for part, name in (("long", "long run"), ("ours", "default run")):
        for arguments, lines in by_arguments(picked(part, kind)).items():
            words = " ".join(["python", f"{kind}.py", *arguments, "--seed N"])
            epochs = lines[0]["metrics"]["epochs"]
            add_row(f"ours, {name} of {epochs} epochs", lines, words)
    if lines := picked("small", kind):
        add_row("ours, at most the example's parameters", lines, "python benchmarks/run.py small")
    for name, (script, *_, epochs) in BASELINES.items():
        if script == kind and (lines := picked("baseline", name)):
            done = lines[0]["metrics"]["epochs"]
            words = f"python benchmarks/run.py {name}" + f" --epochs {done}" * (done < epochs)
            add_row(NAMES[name], lines, words)
    if kind == DENOISER:
        for line in sorted(picked("classical"), key=lambda line: -line["metrics"]["psnr"]):
            found = [f"{line['metrics'][key]:.{columns[key][1]}f}" for key in line["metrics"]]
            name, command = f"{line['program']} {line['setting']}", "benchmarks/classical.py digits"
            rows.append([name, *found, "", "", "", "", f"`python {command}`"])
        lines = [line["metrics"] for line in picked("ours", kind)]
        noisy = [mean([m[f"noisy_{k}"] for m in lines], d) for k, (_, d) in columns.items()]
        rows.append(["noisy input", *noisy, "", "", len(lines), ""])
    heads = " | ".join(head for head, _ in columns.values())
    return table(f" | {heads} | parameters | epochs | seeds | command", rows)


def likelihood_table():
    """Return the table of bounds of log p(x), of the integral, and of bounds of binary digits."""
    rows = []
    for part, name in (("ours", "default run"), ("long", "long run")):
        of_part = [line for line in picked("likelihood") if line["of"] == part]
        for arguments, lines in by_arguments(of_part).items():
            of_grey, of_binary = ([line[key] for line in lines] for key in ("metrics", "binary"))
            cells = [
                mean([m["negative_elbo"] for m in of_grey], 2),
                mean([m["negative_iwae_bound"] for m in of_grey], 2),
                mean([line["quadrature"] for line in lines], 2),
                mean([m["negative_elbo"] for m in of_binary], 2),
                mean([m["negative_iwae_bound"] for m in of_binary], 2),
            ]
            rows.append([" ".join([name, *arguments]), *cells, len(lines)])
    grey = " | negative ELBO | negative IWAE bound, K = 500 | log p(x), quadrature"
    binary = "binarized: negative ELBO | binarized: negative IWAE bound, K = 50"
    return table(f"{grey} | {binary} | seeds", rows)


def images_of_recipe(program):
    """Return how many images a whole training takes."""
    if program in BASELINES:
        return 60000 * BASELINES[program][4]
    return 55000 * picked("ours", program)[0]["metrics"]["epochs"]


def speed_table():
    """Return the table of training speed, and of what a whole recipe takes at that speed."""
    rows, ratios, times = [], [], {}
    for line in picked("speed"):
        name, found, processor = line["program"], line["rates"], line["machine"]["processor"]
        times[processor, name] = images_of_recipe(name) / line["images_per_second"]
        speed = f"{line['images_per_second']:,.0f} ({min(found):,.0f} to {max(found):,.0f})"
        compute = line.get("compute_images_per_second")  # older results do not have it
        compute = f"{compute:,.0f}" if compute else ""
        cells = [speed, compute, f"{images_of_recipe(name):,}", f"{times[processor, name]:.0f} s"]
        rows.append([NAMES[name], processor, *cells])
    for name, (kind, *_) in BASELINES.items():
        found = {cpu: times[cpu, name] / times[cpu, kind] for cpu, _ in times}
        found = " and ".join(f"{ratio:.1f} times ({cpu})" for cpu, ratio in found.items())
        ratios.append(f"- The {NAMES[name]} takes {found} as long as {kind}.py.")
    head = "images a second (from, to) | without the input pipeline"
    head += " | images of the whole recipe | time at that speed"
    return table(f" | processor | {head}", rows) + "\n\n" + "\n".join(ratios)


def by_epochs(kind):
    """Return {epochs: a script's results of that length}, shortest first."""
    found = {}
    for part in ("budgets", "ours", "long"):
        for line in picked(part, kind):
            found.setdefault(line["metrics"]["epochs"], []).append(line)
    return dict(sorted(found.items()))


def values_of(lines, metric):
    return [line["metrics"][metric] for line in lines]


def machines(lines):
    """Return the processors and numbers of threads of results, as text."""
    found = []
    for line in lines:
        processor, threads = line["machine"]["processor"], line["machine"]["threads"]
        found.append(f"{processor}, {threads} thread{'s' if threads > 1 else ''}")
    return " and ".join(sorted(set(found)))


def shortest_passing_run(kind, metric, sign):
    """Return the shortest runs all of whose seeds pass the example's mean result.

    Args:
        sign: 1 for a metric that is better when higher, -1 for one that is better when lower.
    """
    goal = statistics.fmean(values_of(picked("baseline", EXAMPLES[kind]), metric))
    for lines in by_epochs(kind).values():
        if all(sign * value > sign * goal for value in values_of(lines, metric)):
            return lines
    raise ValueError(f"no run of {kind} passes {goal}, the {metric} of {EXAMPLES[kind]}")


def passing_column(kind, metric, sign):
    """Return one column of the passing table, {head of the row: cell}."""
    speed, example = rates(), EXAMPLES[kind]
    baseline = picked("baseline", example)
    example_size = baseline[0]["metrics"]["parameters"]
    example_seconds = images_of_recipe(example) / speed[example]
    lines = shortest_passing_run(kind, metric, sign)
    size, epochs = lines[0]["metrics"]["parameters"], lines[0]["metrics"]["epochs"]
    train_seconds = 55000 * epochs / speed[kind]
    timed = [line for line in lines if line["process_seconds"]]
    whole_seconds = statistics.median(line["process_seconds"] for line in timed)
    fit_seconds = statistics.median(values_of(timed, "train_seconds"))
    return {
        "metric": METRICS[kind][metric][0],
        "example": NAMES[example],
        "its parameters": f"{example_size:,}",
        "its result": mean(values_of(baseline, metric), 2),
        "its training time": f"{example_seconds:.0f} s",
        "passed by": f"`{kind}.py --epochs {epochs}`",
        "our parameters": f"{size:,} ({size / example_size:.1f} times as many)",
        "our result": mean(values_of(lines, metric), 2),
        "our training time": f"{train_seconds:.0f} s",
        "share of the example's training time": f"1/{example_seconds / train_seconds:.0f}",
        "ours from the command to the last file": f"{whole_seconds:.0f} s",
        "of that, training with validation": f"{fit_seconds:.0f} s",
        "the whole as a share of the example's training time": (
            f"1/{example_seconds / whole_seconds:.0f}"
        ),
        "the whole was measured on": machines(timed),
    }


def passing_table():
    """Return the table of the shortest runs that pass the examples, one column for each script."""
    columns = [passing_column(VAE, "negative_elbo", -1), passing_column(DENOISER, "psnr", 1)]
    rows = [[head, *(column[head] for column in columns)] for head in columns[0]]
    return table(" | VAE | denoiser", rows)


def default_runs(kind):
    """Return all results of default runs of a script, with any seed, threads and kernels."""
    return picked("ours", kind) + picked("spread", kind)


def expected_ranges(kind):
    """Return {metric: (low, high)} of a script's default runs: mean ± 3 standard deviations."""
    ranges = {}
    for metric in EXPECTED[kind]:
        values = values_of(default_runs(kind), metric)
        middle, margin = statistics.fmean(values), DEVIATIONS * statistics.stdev(values)
        ranges[metric] = (middle - margin, middle + margin)
    return ranges


def spread_table():
    """Return the table of how much default runs differ, and of the ranges that scripts print."""
    rows = []
    for kind in SCRIPTS:
        ranges = expected_ranges(kind)
        for metric, (name, digits) in EXPECTED[kind].items():
            values = values_of(default_runs(kind), metric)
            numbers = [statistics.fmean(values), statistics.stdev(values), min(values), max(values)]
            cells = [f"{number:.{digits}f}" for number in numbers]
            low, high = ranges[metric]
            expected = f"{low:.{digits}f} to {high:.{digits}f}"
            rows.append([NAMES[kind], name, len(values), *cells, expected])
    return table(" | metric | runs | mean | standard deviation | least | greatest | expected", rows)


def spread_cover():
    """Return the list of the runs behind the expected ranges."""
    items = []
    for kind in SCRIPTS:
        lines = default_runs(kind)
        seeds = ", ".join(str(seed) for seed in sorted({line["seed"] for line in lines}))
        kinds = Counter()
        for line in lines:
            kinds[machines([line])] += 1
        counts = "; ".join(f"{count} runs on {name}" for name, count in sorted(kinds.items()))
        items.append(f"- {NAMES[kind]}: seeds {seeds}; {counts}.")
    return "\n".join(items)


def small_text():
    """Return the sentence about the small models, or nothing where none was measured."""
    return SMALL_TEXT if picked("small") else ""


def dimensions_table():
    """Return the table of runs with more dimensions, on grey digits."""
    rows = []
    for arguments, lines in by_arguments(picked("dimensions")).items():
        metrics = [line["metrics"] for line in lines]
        names = ("negative_elbo", "reconstruction", "kl", "negative_iwae_bound")
        cells = [mean([m[name] for m in metrics], 2) for name in names]
        cells.append(mean([m["active_dimensions"] for m in metrics], 0))
        size, command = metrics[0]["parameters"], f"{VAE}.py {' '.join(arguments)} --seed N"
        rows.append([metrics[0]["latent_dim"], *cells, f"{size:,}", len(lines), f"`{command}`"])
    head = "negative ELBO | reconstruction | KL | negative IWAE bound, K = 50 | active | parameters"
    return table(f"dimensions | {head} | seeds | command", rows)


def own_pictures_table():
    """Return the table of the colour drawings, by model and side."""
    rows, groups = [], {}
    for line in picked("own"):
        groups.setdefault((line["side"], line["program"]), []).append(line["metrics"])
    for (side, program), found in groups.items():
        metrics = [m for m in found if math.isfinite(m["negative_elbo"])]
        cells = [mean([m["negative_elbo"] for m in metrics], 0)]
        cells += [mean([m["psnr"] for m in metrics], 2), mean([m["kl"] for m in metrics], 1)]
        size, epochs = metrics[0]["parameters"], mean([m["epochs"] for m in metrics], 0)
        seconds = mean([m["train_seconds"] for m in metrics], 0)
        name = NAMES.get(program, program)  # "ours" and "version 1.1.0" are names
        seeds = f"{len(metrics)} of {len(found)}" if len(metrics) < len(found) else len(found)
        rows.append([f"{side} x {side}", name, *cells, f"{size:,}", epochs, seconds, seeds])
    head = "negative ELBO | PSNR of reconstructions, dB | KL | parameters | epochs | seconds"
    return table(f"drawings | model | {head} | seeds", rows)


def binarized_table():
    """Return the table of runs on binarized digits, by dimensions."""
    rows, groups = [], {}
    for line in picked("binarized"):
        groups.setdefault(line["latent_dim"], []).append(line["metrics"])
    for latent_dim, metrics in sorted(groups.items()):
        names = ("negative_elbo", "reconstruction", "kl", "negative_iwae_bound")
        cells = [mean([m[name] for m in metrics], 2) for name in names]
        active = mean([m["active_dimensions"] for m in metrics], 0)
        rows.append([latent_dim, *cells, active, metrics[0]["epochs"], len(metrics)])
    head = "negative ELBO | reconstruction | KL | negative IWAE bound, K = 500 | active"
    return table(f"dimensions | {head} | epochs | seeds", rows)


def levels_table():
    """Return the table of PSNR by the level of noise in training and in the test."""
    rows, groups = [], {}
    for line in picked("level"):
        _, *levels = line["arguments"]
        results_of = groups.setdefault(" to ".join(levels), {})
        results_of.setdefault(line["level"], []).append(line["metrics"]["psnr"])
    for trained_on, by_level in groups.items():
        rows.append([trained_on, *(mean(values, 2) for values in by_level.values())])
    return table(f"trained on | {' | '.join(map(str, LEVELS))}", rows)


def corruptions_table():
    """Return the table of digits with masked pixels, or with salt and pepper."""
    rows, groups = [], {}
    for line in picked("corruptions"):
        groups.setdefault(line["arguments"][1], []).append(line["metrics"])
    for corruption, metrics in groups.items():
        for name, prefix in (("denoised by ours", ""), ("noisy input", "noisy_")):
            columns = METRICS[DENOISER].items()
            cells = [mean([m[prefix + key] for m in metrics], d) for key, (_, d) in columns]
            rows.append([corruption, name, *cells[:3], len(metrics)])
    for line in picked("filling"):
        columns = METRICS[DENOISER].items()
        cells = [f"{line['metrics'][key]:.{d}f}" for key, (_, d) in columns if key != "bce"]
        name = f"{line['program']} {line['setting']}".strip()
        rows.append(["masking or salt-and-pepper, told which pixels", name, *cells, ""])
    return table("corruption | images | PSNR, dB | SSIM | squared error | seeds", rows)


def documents_table():
    """Return the tables of synthetic degraded documents, by method and by font of the pages."""
    line = picked("documents")[-1]
    rows = []
    for name, found in line["methods"].items():
        cells = [f"{found['psnr']:.2f}", f"{found['ssim']:.3f}", f"{found['error rate']:.1%}"]
        if name == "clean pages":
            cells[0] = ""
        rows.append([name.replace("dirty", "degraded"), *cells])
    by_method = table("pages | PSNR, dB | SSIM | CER", rows)
    rows = []
    for font, rates in line["fonts"].items():
        degraded = rates.get("degraded", rates.get("dirty"))  # as it was named before
        rows.append([font, f"{degraded:.1%}", f"{rates['cleaned']:.1%}"])
    by_font = table("font | degraded | cleaned by ours", rows)
    return f"{by_method}\n\nThe same by font:\n\n{by_font}"


def cost_table():
    """Return the table of what a run costs beside its training."""
    rows = []
    for line in picked("ours") + picked("long"):
        if line["process_seconds"]:
            name, threads = NAMES[line["program"]], line["machine"]["threads"]
            name, seconds = " ".join([name, *line["arguments"]]), line["metrics"]["train_seconds"]
            cells = [f"{seconds:.0f} s", f"{line['process_seconds'] - seconds:.0f} s"]
            rows.append([name, line["seed"], threads, *cells, f"{line['memory']:.2f} GB"])
    return table(" | seed | threads | training | the rest | peak memory", rows)


def memory_table():
    """Return the table of the peak memory with large arrays."""
    rows = []
    for line in picked("memory"):
        cells = [f"{line['count']:,}", line["dtype"], f"{line['images']:.2f} GB"]
        rows.append([NAMES[line["program"]], *cells, f"{line['memory']:.2f} GB"])
    return table(" | images of 64 x 64 x 3 | type | their size | peak memory", rows)


def workers_table():
    """Return the table of training steps by one and by two workers of one thread each."""
    rows = []
    for kind in SCRIPTS:
        steps = {
            (x["batch_size"], x["workers"]): x["milliseconds"] for x in picked("workers", kind)
        }
        for name, size, count in (
            ("one worker", 64, 1),
            ("strong scaling: two workers share the batch", 64, 2),
            ("weak scaling: two workers with a batch each", 128, 2),
        ):
            step, gain = steps[size, count], size / steps[size, count] * steps[64, 1] / 64
            cost = f"{step - steps[size // count, 1]:.1f} ms" if count > 1 else ""
            cells = [f"{step:.1f} ms", f"{1000 * size / step:,.0f}", f"{gain:.2f}", cost]
            rows.append([NAMES[kind], name, size, *cells])
    head = "batch | a step | images a second | speed-up | communication in a step"
    return table(f" |  | {head}", rows)


def photographs():
    """Return the table of denoisers on a photograph."""
    rows = []
    for line in sorted(picked("photograph"), key=lambda line: -line["psnr"]):
        name = NAMES.get(line["program"], line["program"])
        rows.append([f"{name} {line.get('setting', '')}".strip(), f"{line['psnr']:.2f}"])
    return table(" | PSNR, dB", rows)


def curve(path):
    """Draw the test metric of each recipe against its training time, at the speeds of one run."""
    speed, figure = rates(), Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, kind, metric, label, by_epoch, limits in (
        (panels[0], VAE, "negative_elbo", "negative ELBO, nats (low is good)", "loss", (130, 175)),
        (panels[1], DENOISER, "psnr", "PSNR, dB (high is good)", "psnr", (16.5, 22.5)),
    ):
        ours = by_epochs(kind)
        minutes = [55000 * epochs / speed[kind] / 60 for epochs in ours]
        means = [statistics.fmean(values_of(lines, metric)) for lines in ours.values()]
        axes.plot(minutes, means, "o-", label="this repository: one point for each length of run")
        for baseline in (name for name, (script, *_) in BASELINES.items() if script == kind):
            values = picked("baseline", baseline)[0]["history"][f"val_{by_epoch}"]
            minutes = [60000 / speed[baseline] / 60 * (epoch + 1) for epoch in range(len(values))]
            axes.plot(minutes, values, ".-", label=f"{NAMES[baseline]}: the epochs of one run")
        axes.set(xlabel="training time, minutes on two cores", ylabel=label, xscale="log")
        ticks = [0.25, 0.5, 1, 2, 5, 10, 20, 50]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(limits)  # the legend stands above all curves
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)


def text():
    """Return RESULTS.md: its text with the tables of the results that there are."""
    this = picked("speed")[-1]["machine"]
    processors = sorted({line["machine"]["processor"] for line in results()})
    tables = {"vae": metrics_table(VAE), "denoiser": metrics_table(DENOISER)}
    tables |= {"likelihood": likelihood_table(), "speed": speed_table(), "cost": cost_table()}
    tables |= {"passing": passing_table(), "workers": workers_table(), "photograph": photographs()}
    tables |= {"spread": spread_table(), "cover": spread_cover(), "small": small_text()}
    tables["memory"] = memory_table()
    for part, section, make_table in (
        ("dimensions", DIMENSIONS_TEXT, dimensions_table),
        ("binarized", BINARIZED_TEXT, binarized_table),
        ("own", OWN_TEXT, own_pictures_table),
        ("level", LEVELS_TEXT, levels_table),
        ("corruptions", CORRUPTIONS_TEXT, corruptions_table),
        ("documents", DOCUMENTS_TEXT, documents_table),
    ):
        lines = picked(part)
        version = lines[-1].get("tesseract") if lines else None
        tables[part] = section.format(table=make_table(), tesseract=version) if lines else ""
    settings = {"processors": " or ".join(processors), "deviations": DEVIATIONS}
    settings["long_epochs"] = int(LONG[1])
    older = "older-denoiser"
    settings["older_minutes"] = images_of_recipe(older) / rates()[older] / 60
    settings["long_minutes"] = 55000 * settings["long_epochs"] / rates()[VAE] / 60
    return TEXT.format(**settings, **tables, **this)


def main():
    curve(HERE / "figures_over_time.png")
    (HERE / "RESULTS.md").write_text(text())
    print("wrote RESULTS.md and figures_over_time.png")


SMALL_TEXT = """
The rows "ours, at most the example's parameters" are our recipes with our layers, narrower
(`small_vae` and `small_denoiser` in `run.py`). Their widths were set by their size alone.
"""

DIMENSIONS_TEXT = """\
### More dimensions

Runs of 10 epochs (`python benchmarks/run.py dimensions`). A dimension is
active if its KL term is above 0.01 nats:

{table}

"""

OWN_TEXT = """\
### Colour drawings

The different drawings of 48 x 48 and of 64 x 64 pixels of Debian's package `oxygen-icon-theme`,
with 16 dimensions (`python benchmarks/run.py own`); a tenth of them is for the test. Version 1.1.0
of our script trains for 30 epochs with its defaults, ours for 16 in batches of 32, which take about
as long. Two convolutional VAEs of others train for as long as ours, each with its published
optimizer, rate and batch size. Nats are per image; the PSNR is that of the decoded z_mean:

{table}

The five levels are those of `vanilla_vae.py` in https://github.com/AntixK/PyTorch-VAE; in batches
of 144, an epoch of them has few steps. A seed with which the negative ELBO of a model is not a
number is left out of its means. All have the loss of our script. The drawings of 64 x 64 pixels, by
the models of seed 0; so short a training draws grey shapes at best:

![Drawings, decoded by each model, and samples of each](../images/vae_own_pictures.png)

"""

BINARIZED_TEXT = """\
### Binarized digits

The protocol of most papers: each training pixel is drawn as 0 or 1 anew for every batch, each test
pixel once (`python benchmarks/run.py binarized`). Runs of 48 epochs with a peak learning rate of
0.002, otherwise with the defaults:

{table}

For two dimensions, published results are above. As context, those for more dimensions, as two
reproductions quote them. In their code, networks are dense; pixels are drawn anew whenever an image
is read (Davidson et al.), for every epoch (Burda et al.), or once for all (Rezende and Mohamed):

| from | model | dimensions | log p(x) | samples |
| --- | --- | --- | --- | --- |
| Davidson et al. 2018 | hyperspherical VAE | 10 | -93.16 ± 0.31 | 500 |
| Rezende and Mohamed 2015 | Gaussian VAE | 40 | -89.9 | 200 |
| Burda et al. 2016 | Gaussian VAE, 3,280 epochs | 50 | -86.76 | 5,000 |
| the same, reimplemented by nbip | | 50 | -86.35 | 5,000 |

The first two are quoted in the
[reproductions of pythae](https://github.com/clementchadebec/benchmark_VAE/tree/main/examples/scripts/reproducibility),
the others in [nbip/IWAE](https://github.com/nbip/IWAE); the dimensions and epochs are those of
their code.

"""

LEVELS_TEXT = """\
### Several levels of noise

One model for all levels (`--noise 0.1 0.9`) beside models for one level each: PSNR in dB on test
digits with noise of the standard deviation at the head of a column
(`python benchmarks/run.py levels`).

{table}

The model for all levels comes close to each of the others at that one's level, but for the lowest:
there, one that learned that level alone is far better. A model for one level is far worse at higher
levels, and worse at lower ones than those that learned them.

"""

CORRUPTIONS_TEXT = """\
### Masking, and salt and pepper

Half of the pixels masked, or half of them white or black (`python benchmarks/run.py corruptions`).
The last rows are methods that are told which pixels are lost, which makes the two corruptions the
same to them (`python benchmarks/classical.py masked`):

{table}

"""

DOCUMENTS_TEXT = """\
### Synthetic degraded documents

The script trained by a user's commands on 60 pages that `clean_documents.py` degraded, and 20 other
pages with other words in other fonts, read by Tesseract {tesseract}
(`python benchmarks/run.py documents`). CER is the character error rate. In this run, two of
Debian's Liberation fonts were among those of the training pages; the example leaves out the serif
one, because it resembles STIX. The setting of each classical method is the one with the minimum CER
on four training pages:

{table}

"""

TEXT = """\
# Results, and what they cost

Written by `python benchmarks/tables.py` from `results.jsonl`, to which `python benchmarks/run.py`
and `classical.py` add a line for each result, measured once. Metrics are means over the
10,000 test digits, then over seeds, with the standard deviation over seeds.

Everything was measured on machines with {cores} cores shared with others, {processors}, with
TensorFlow {tensorflow} and Keras {keras}.

## How soon the examples' results are reached

The shortest of our runs that pass, with all seeds, the final result of an example (the mean over
its seeds), with their sizes and times (`python benchmarks/run.py budgets`):

{passing}

Training times are of training steps alone, at the speeds below with {threads} threads on
{processor}. "From the command to the last file" is the whole process of our run: start-up,
training with validation, evaluation, models and pictures. It is the median over the seeds, on the
machine of the last row, which other programs used, too. The example was not timed as a process. So
our whole run is compared with the example's training alone, which favours the example.

![Test metrics against training time](figures_over_time.png)

A point of this repository is the mean of three whole runs; the others are epochs of one run.

The Keras examples are reimplemented after their published architectures, optimizers, batch sizes
and numbers of epochs. They differ from the published recipes in this:

- Both train on the 60,000 training digits; the published VAE trains on the test digits, too. Ours
  keep the last 5,000 of the training digits for validation.
- The published denoiser fits 50 epochs of clean digits to themselves and then 100 of noisy to clean
  digits, with noise of 0.4 that is drawn once; here the 100 epochs, with noise of 0.5 drawn again
  for every epoch.

The 5x5x64 denoiser of older tutorials would take {older_minutes:.0f} minutes for its 25 epochs; it
was trained for 12.
The metrics of all three baselines were measured with earlier versions of our scripts. Of the VAE,
the default and the shorter runs, those with more dimensions and the small model are of version
1.6.0, as are the long runs, the likelihoods and the runs on binarized digits; since then the VAE of
grey images and the plane have not changed. The colour drawings are of version 1.7.0. Of the
denoiser, the default and the shorter runs and the other kinds of corruption are of version 1.3.0,
since which the denoiser of grey images has not changed; those of one epoch were made again with
version 1.6.0, on the machine of the speeds. The photograph is of version 1.4.0; the levels of
noise, the degraded pages and the small denoiser are of version 1.4.1. Speed is of version 1.6.0,
memory of version 1.4.1 (denoiser) and 1.6.0 (VAE), and several machines of version 1.0.0. The
default runs of the denoiser, those of the VAE for the expected results, the long runs and those
with more dimensions, binarized digits, other corruptions or levels had company on the machine, so
that their times are too long.
{small}
## VAE, in nats

{vae}

The cross-entropy of grey pixels is the mean of that of their random binarizations. So the ELBO of
grey digits may stand beside that of digits binarized at random, which the next table checks; but
exp of log p(x), or of a bound, is not a normalized density of grey digits (`run.py likelihood`):

{likelihood}

The ELBO differs from that above by other draws of z. The quadrature is the integral of
p(x|z) p(z) over a grid of the plane with a step of 0.02; half the step changes it by 0.04 nats on
400 digits of a long run of an earlier version. It is not a bound, so do not compare it with one. It
is above the bounds because the encoder often misses the best places of a finely divided plane: see
`NOTES.md`.

As context, what is published for two dimensions; data, models, sizes and estimates differ:

| from | model | published | digits |
| --- | --- | --- | --- |
| Davidson et al. 2018, Table 1 | Gaussian VAE | ELBO -137.08, log p(x) -135.73 | binarized |
| the same | hyperspherical VAE | log p(x) -132.50 | binarized |
| Mathieu et al. 2019 | Euclidean VAE | log p(x) -144.5 | grey, cross-entropy |
| the same | Poincaré VAE | log p(x) -144.0 | grey, cross-entropy |

Davidson et al. use dense networks of about half a million weights; ours have 2.0 million. The two
dimensions of their hypersphere are those of a sphere, which has three coordinates. Both papers
estimate log p(x) by importance sampling, Davidson et al. with 500 samples and Mathieu et al. with
5,000. So compare the former with our IWAE bound of binarized digits, and the latter with our IWAE
bound of grey digits; with more samples ours would be a little higher.

{dimensions}{binarized}{own}## Denoiser, noise 0.5

{denoiser}

Every classical denoiser is followed by a look-up table of 64 bins from its output to the mean clean
value, because clipped noise is biased: it moves black to a mean of 0.195 and white to 0.805. Tables
are fitted on 500 validation digits, and the setting is the best of several, after the table, on 500
others. The ridge regression, of all pixels from all pixels, is fitted on 8,000 training digits.
BM3D gets 500 digits side by side as one image, in which it can use the patches of all of them.

{level}{corruptions}{documents}### A photograph

A photograph that the denoiser never saw (scikit-image's cat, 451 x 300, RGB), with noise of 0.1:
`python benchmarks/classical.py photograph` makes 40,000 random crops of 32 x 32 pixels of six other
photographs, with 4,000 more of other strips for validation and as many for a test, and trains the
denoiser on them for 10 epochs with `--batch-size 32 --learning-rate 0.001`. The settings of the
classical denoisers are the best on scikit-learn's flower. BM3D wins; our denoiser, with a code of
128 numbers for each square of 4 x 4 pixels, is second. What limits it is not the code: with 64
numbers, the channels in their own order, and trained and tested without noise, it returned the cat
with 43.7 dB.

{photograph}

## Which choices saw the test digits

Models, rates, batch sizes and all other settings were chosen on the validation digits. The lengths
of the default runs were chosen for the time that they take. Their test metrics were known for
several lengths when that was decided; the validation digits rank the lengths the same, as
`NOTES.md` shows.

## Expected results

A script prints, beside the results of a default run, the range to expect: the mean of all default
runs ± {deviations} standard deviations (`python benchmarks/run.py spread`):

{spread}

The ranges cover the seeds, numbers of threads and processors of these runs:

{cover}

## Speed

`python benchmarks/run.py speed`: medians of seven alternating rounds of some seconds in a process.

{speed}

## Cost of a run

Training is the time of the epochs with validation; the rest is start-up, evaluation and pictures.
The long runs shared the two cores with other programs; at the speed above, one of {long_epochs}
epochs takes {long_minutes:.0f} minutes.

{cost}

Images are in memory once, as bytes. An array of floats is there, too, until it is converted. With
large arrays, made on the spot, and one epoch of 3,200 images (`python benchmarks/run.py memory`):

{memory}

## Several machines

Two processes of one thread each on the two cores of the Intel Xeon, communicating over loopback;
medians over training steps of `python benchmarks/workers.py`. The cost of communication is a
step of two workers less a step of one worker alone with the same share of images; it includes the
sharing of memory and caches. For models as small as these, a second process gains 41 % at best
and more than halves the speed at worst. Several machines are for larger models.

{workers}
"""

if __name__ == "__main__":
    main()
