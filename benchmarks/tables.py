"""Writes RESULTS.md and its picture from results.jsonl: python benchmarks/tables.py."""

import statistics

from matplotlib.figure import Figure
from run import BASELINES, BFLOAT16, DENOISER, HERE, SCRIPTS, VAE, results

NAMES = {
    "keras-vae": "Keras VAE example",
    "keras-denoiser": "Keras denoising example",
    "older-denoiser": "older 5x5x64 denoiser",
    VAE: f"{VAE}.py",
    DENOISER: f"{DENOISER}.py",
}
NAMES |= {name + BFLOAT16: NAMES[name] + BFLOAT16 for name in SCRIPTS}
METRICS = {  # of each script: names in metrics.json, and how many decimals to show
    VAE: {"negative_elbo": 2, "reconstruction": 2, "kl": 2, "iwae_bound": 2},
    DENOISER: {"psnr": 2, "ssim": 4, "mse": 5, "bce": 4},
}

HEADS = {
    "negative_elbo": "negative ELBO",
    "reconstruction": "reconstruction",
    "kl": "KL",
    "iwae_bound": "IWAE bound, K = 50",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "mse": "squared error",
    "bce": "cross-entropy",
}


def picked(part, program=None):
    """Return the results of a part, and of a program where it is given, in order of their seeds."""
    lines = [x for x in results() if x["part"] == part and program in (None, x.get("program"))]
    return sorted(lines, key=lambda line: line.get("seed", 0))


def mean(values, digits):
    """Return the mean of values as text and, of more than one, their standard deviation."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def table(head, rows):
    """Return a Markdown table, or a sentence where it would have no rows."""
    if not rows:
        return "Not measured yet."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def trained_row(name, lines, columns, command):
    """Return a row of metrics, epochs, seeds and command."""
    metrics = [line["metrics"] for line in lines]
    cells = [mean([m[metric] for m in metrics], digits) for metric, digits in columns.items()]
    return [name, *cells, metrics[0]["epochs"], len(lines), f"`{command}`"]


def metrics_table(kind):
    """Return the table of one script's test metrics beside those of its baselines."""
    columns, rows = METRICS[kind], []
    for part, name in (("long", "long run"), ("ours", "default run")):
        if lines := picked(part, kind):
            words = " ".join(["python", f"{kind}.py", *lines[0]["arguments"], "--seed N"])
            rows.append(trained_row(f"ours, {name}", lines, columns, words))
    for name, (script, *_) in BASELINES.items():
        if script == kind and (lines := picked("baseline", name)):
            words = f"python benchmarks/run.py {name}"
            if lines[0]["metrics"]["epochs"] < BASELINES[name][4]:
                words += f" --epochs {lines[0]['metrics']['epochs']}"
            rows.append(trained_row(NAMES[name], lines, columns, words))
    names = [HEADS[metric] for metric in columns]
    if kind == DENOISER:
        for line in picked("classical"):
            cells = [f"{line['metrics'][metric]:.{digits}f}" for metric, digits in columns.items()]
            name = f"{line['program']} {line['setting']}"
            rows.append([name, *cells, "", "", "`python benchmarks/run.py classical`"])
        metrics = [line["metrics"] for line in picked("ours", kind)]
        noisy = [mean([m[f"noisy_{f}"] for m in metrics], digits) for f, digits in columns.items()]
        rows.append(["noisy input", *noisy, "", len(metrics), ""])
    return table(["", *names, "epochs", "seeds", "command"], rows)


def likelihood_table():
    """Return the table of the estimates of log p(x), of their integral, and of binary digits."""
    rows = []
    for part in ("ours", "long"):
        if lines := [line for line in picked("likelihood") if line["of"] == part]:
            rows.append(
                [
                    {"ours": "default run", "long": "long run"}[part],
                    mean([line["metrics"]["negative_elbo"] for line in lines], 2),
                    mean([line["metrics"]["iwae_bound"] for line in lines], 2),
                    mean([line["quadrature"] for line in lines], 2),
                    mean([line["binary"]["negative_elbo"] for line in lines], 2),
                    mean([line["binary"]["iwae_bound"] for line in lines], 2),
                    len(lines),
                ]
            )
    head = [
        "",
        "negative ELBO",
        "IWAE bound, K = 500",
        "log p(x), quadrature",
        "binarized: negative ELBO",
        "binarized: IWAE bound, K = 50",
        "seeds",
    ]
    return table(head, rows)


def speed_table():
    """Return the table of training speed, and of what a whole recipe takes at that speed."""
    rows, recipe = [], {}
    for line in picked("speed"):
        name, rate = line["program"], line["images_per_second"]
        if name in BASELINES:
            images = 60000 * BASELINES[name][4]
        else:
            script = name.removesuffix(BFLOAT16)
            images = 55000 * picked("ours", script)[0]["metrics"]["epochs"]
        recipe[name] = images / rate
        rows.append(
            [
                NAMES[name],
                f"{line['parameters']:,}",
                f"{rate:,.0f} ({min(line['rates']):,.0f} to {max(line['rates']):,.0f})",
                f"{line['operations_per_image'] / 1e6:.1f}",
                f"{100 * line['share_of_peak']:.0f} %",
                f"{images:,}",
                f"{recipe[name]:.0f} s",
            ]
        )
    head = [
        "",
        "parameters",
        "images a second (from, to)",
        "MFLOP an image",
        "share of the fp32 matmul peak",
        "images of the whole recipe",
        "time at that speed",
    ]
    ratios = [
        f"- The {NAMES[baseline]} takes {recipe[baseline] / recipe[kind]:.1f} times as long as"
        f" {kind}.py."
        for baseline, (kind, *_) in BASELINES.items()
        if baseline in recipe and kind in recipe
    ]
    for kind in SCRIPTS:
        if kind + BFLOAT16 in recipe:
            times = recipe[kind] / recipe[kind + BFLOAT16]
            ratios.append(f"- {kind}.py is {times:.2f} times as fast in bfloat16.")
    peak = f"- The matmul peak is {picked('speed')[0]['peak'] / 1e9:.0f} GFLOP/s."
    return table(head, rows) + "\n\n" + "\n".join([*ratios, peak])


def by_epochs(kind, metric):
    """Return {epochs: a script's test metric after runs of so many}, in order of the epochs."""
    ended = {}
    for part in ("budgets", "ours", "long"):
        for line in picked(part, kind):
            ended.setdefault(line["metrics"]["epochs"], []).append(line["metrics"][metric])
    return dict(sorted(ended.items()))


def passing_table():
    """Return the table of the shortest runs all of whose seeds are past an example's result."""
    rates = {line["program"]: line["images_per_second"] for line in picked("speed")}
    rows = []
    for kind, metric, sign, baseline in (
        (VAE, "negative_elbo", -1, "keras-vae"),
        (DENOISER, "psnr", 1, "keras-denoiser"),
    ):
        finals = [line["metrics"][metric] for line in picked("baseline", baseline)]
        whole = 60000 * BASELINES[baseline][4] / rates[baseline]
        for epochs, values in by_epochs(kind, metric).items():
            if all(sign * value > sign * statistics.fmean(finals) for value in values):
                seconds = 55000 * epochs / rates[kind]
                words = [f"`{kind}.py --epochs {epochs}`", mean(values, 2), f"{seconds:.0f} s"]
                example = [NAMES[baseline], mean(finals, 2), f"{whole:.0f} s"]
                rows.append([HEADS[metric], *example, *words, f"1/{whole / seconds:.0f}"])
                break
    head = ["", "example", "its result", "its time", "passed by", "result", "time", "share"]
    return table(head, rows)


def cost_table():
    """Return the table of what a run costs beside its training, where one run had all cores."""
    rows = []
    for part in ("ours", "long"):
        for line in picked(part):
            if line["process_seconds"] and line["machine"]["threads"] == line["machine"]["cores"]:
                seconds = line["metrics"]["train_seconds"]
                rows.append(
                    [
                        " ".join([NAMES[line["program"]], *line["arguments"]]),
                        line["seed"],
                        f"{seconds:.0f} s",
                        f"{line['process_seconds'] - seconds:.0f} s",
                        f"{line['memory']:.2f} GB",
                    ]
                )
    return table(["", "seed", "training", "all else", "peak memory"], rows)


def bfloat16_table():
    """Return the table of metrics after 4 epochs in float32 and in bfloat16."""
    rows = []
    for kind, metric in ((VAE, "negative_elbo"), (DENOISER, "psnr")):
        lines = picked("bfloat16", kind)
        epochs = lines[0]["metrics"]["epochs"]
        same = [x for x in picked("budgets", kind) if x["metrics"]["epochs"] == epochs]
        for name, found in (("float32", same), ("bfloat16", lines)):
            values = mean([line["metrics"][metric] for line in found], 2)
            rows.append([NAMES[kind], name, HEADS[metric], values, len(found)])
    return table(["", "computed in", "metric", "", "seeds"], rows)


def workers_table():
    """Return the table of training steps by one and by two workers of one thread each."""
    rows = []
    for kind in SCRIPTS:
        found = {
            (x["batch_size"], x["workers"]): x["milliseconds"] for x in picked("workers", kind)
        }
        cases = {
            "one worker": (64, 1),
            "strong scaling: two workers share the batch": (64, 2),
            "weak scaling: two workers with a batch each": (128, 2),
        }
        alone = 64 / found[64, 1]
        for name, (batch_size, count) in cases.items():
            milliseconds = found[batch_size, count]
            rate = batch_size / milliseconds
            share = milliseconds - found[batch_size // count, 1]
            rows.append(
                [
                    NAMES[kind],
                    name,
                    batch_size,
                    f"{milliseconds:.1f} ms",
                    f"{1000 * rate:,.0f}",
                    f"{rate / alone:.2f}",
                    f"{share:.1f} ms" if count > 1 else "",
                ]
            )
    head = ["", "", "batch", "a step", "images a second", "speed-up", "communication in a step"]
    return table(head, rows)


def curve(path):
    """Draw the test metric of each recipe against its training time, at the speeds of one run."""
    rates = {line["program"]: line["images_per_second"] for line in picked("speed")}
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = {
        VAE: ("negative_elbo", "negative ELBO, nats (lower is better)", "val_loss"),
        DENOISER: ("psnr", "PSNR, dB (higher is better)", "val_psnr"),
    }
    for axes, (kind, (name, label, by_epoch)) in zip(panels, titles.items(), strict=True):
        baselines = [name for name, (script, *_) in BASELINES.items() if script == kind]
        ended = by_epochs(kind, name)
        minutes = [55000 * epochs / rates[kind] / 60 for epochs in ended]
        values = [statistics.fmean(found) for found in ended.values()]
        axes.plot(minutes, values, "o-", label="ours: a run each")
        for baseline in baselines:
            for line in picked("baseline", baseline)[:1]:
                values = line["history"][by_epoch]
                each = 60000 / rates[baseline] / 60
                minutes = [each * epoch for epoch in range(1, len(values) + 1)]
                axes.plot(minutes, values, ".-", label=f"{NAMES[baseline]}: epochs of a run")
        axes.set(xlabel="training time, minutes on two cores", ylabel=label, xscale="log")
        ticks = [0.25, 0.5, 1, 2, 5, 10, 20, 50]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    panels[0].set_ylim(top=175)
    panels[1].set_ylim(16.5, 22.5)  # the legend stands above all curves
    figure.savefig(path, dpi=150)


def text():
    """Return what RESULTS.md says about the results that there are."""
    this = picked("speed")[0]["machine"]
    processors = sorted({line["machine"]["processor"] for line in results()})
    return TEXT.format(
        processors=" or ".join(processors),
        vae=metrics_table(VAE),
        denoiser=metrics_table(DENOISER),
        likelihood=likelihood_table(),
        speed=speed_table(),
        passing=passing_table(),
        cost=cost_table(),
        bfloat16=bfloat16_table(),
        workers=workers_table(),
        **this,
    )


def main():
    curve(HERE / "figures_over_time.png")
    (HERE / "RESULTS.md").write_text(text())
    print("wrote RESULTS.md and figures_over_time.png")


TEXT = """\
# Results, and what they cost

Written by `python benchmarks/tables.py` from `results.jsonl`, to which `python benchmarks/run.py`
adds a line for each result; its `--help` lists the parts. Metrics are means over the 10,000 test
digits, then over seeds, with the standard deviation over seeds. `NOTES.md` has what was tried. A
result that has a line in `results.jsonl` is not measured again; move that file away to start anew.

Times are of one machine: {processor}, {cores} cores shared with others, TensorFlow {tensorflow},
Keras {keras}. Runs for metrics alone used one or two threads on {processors}.

The Keras examples are reimplemented after their published architectures and recipes, but train on
the 60,000 training digits, with noise of 0.5 that is drawn for every epoch; ours keep the last
5,000 of these digits for validation. The 5x5x64 denoiser of older tutorials takes an hour for its
25 epochs; it was trained for the number of epochs in the table.

The long runs of the VAE, and the rows of the Keras examples and of the classical denoisers, were
measured before the scripts were shortened. The VAE's layers, loss and schedule are the same since;
its decoder's bias, the data order and the random numbers are not.

![Test metrics against training time](figures_over_time.png)

Each point of ours is the mean of three runs: of 1, 2, 4, 10 and 48 epochs of the VAE, and of 1, 2,
4 and 7 of the denoiser. Those of the others are the epochs of their first run. Times are epochs at
the speeds below.

## VAE, in nats

{vae}

For comparison, from Davidson et al., Hyperspherical Variational Auto-Encoders, 2018, Table 1, for
two dimensions and binarized digits: Gaussian VAE, log p(x) -135.73 and ELBO -137.08;
hyperspherical VAE, log p(x) -132.50. The cross-entropy of grey pixels is the mean of that of
their random binarizations, so the ELBO of grey digits may stand beside theirs; the table checks
that, and log p(x), with digits binarized at random (`python benchmarks/run.py likelihood`):

{likelihood}

The quadrature is the integral of p(x|z) p(z) over a grid of the plane with a step of 0.02; half
of that changes it by 0.04 nats on 400 digits of one long run. It is above the IWAE
bound because the decoder divides the plane so finely that the narrow q(z|x) often
misses the best place for x.

## Denoiser, noise 0.5

{denoiser}

The setting of a classical denoiser is the best of several on 200 validation digits. BM3D gets 500
digits side by side as one image, because it takes half a second for each image; it may find similar
patches in all of them. Clipping moves black to a mean of 0.195 and white to 0.804, which none of
them corrects.

## Speed

`python benchmarks/run.py speed`: all trainings, timed alternately in seven rounds of some seconds
each in one process; medians. Operations are those that TensorFlow's profiler counts in a training
step, those of the optimizer included; the peak is that of a matrix product of 2048 x 2048 fp32
numbers, timed in the same rounds.

{speed}

The shortest of our runs that pass, with all seeds, the final result of an example (the mean over
its seeds), with times at those speeds (`python benchmarks/run.py budgets`):

{passing}

After 4 epochs, without and with `--bfloat16` (`python benchmarks/run.py budgets bfloat16`):

{bfloat16}

## Cost of a run

Runs of `python benchmarks/run.py ours long` that used both cores. Training is the time of the
training steps; all else is start-up, validation, checkpoints, evaluation and pictures. The long
run is of an earlier version, whose training time includes validation.

{cost}

## Several machines

Two processes of one thread each on the two cores of one machine, that talk through its loopback;
medians over training steps of `python benchmarks/run.py workers`. The cost of communication is a
step of two workers less a step of one worker alone with the same share of images; it includes the
sharing of memory and caches. For models as small as these, a second process on the same machine
gains a third at best and halves the speed at worst. Several machines are for larger models.

{workers}

"""

if __name__ == "__main__":
    main()
