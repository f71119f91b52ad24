"""Measures what RESULTS.md reports, part by part, and adds the results to results.jsonl.

    python benchmarks/run.py --help          # the parts, and how long each takes
    python benchmarks/run.py default long
    python benchmarks/tables.py              # writes the tables of RESULTS.md

A result that results.jsonl has for the present version of a script is not measured again, and a
stopped training continues after its last finished epoch. So a part can be stopped and called again.
"""

import argparse
import importlib
import itertools
import os
import statistics
import time

import results
import training
from results import DENOISER, PATHS, VAE
from training import WORK, environment_of, load, load_model, measure, train

LEVELS = ("0.1", "0.3", "0.5", "0.7", "0.9")  # of Gaussian noise
ROUNDS, ROUND_SECONDS = 7, 4  # of the part speed, for each program
EXAMPLES = {"keras-vae": VAE, "keras-denoiser": DENOISER}

# ---- Parts that are runs of a script -------------------------------------------------------------


def default(seed):
    for threads, script in itertools.product((2, 1), PATHS):
        measure("default", script, seed, threads=threads, case=f"threads: {threads}")


def long(seed):
    measure("long", VAE, seed, ["--epochs", "96", "--learning-rate", "0.002"])


def lengths(seed):
    for script, counts in {VAE: ("1", "2", "4", "8"), DENOISER: ("1", "2", "4")}.items():
        for epochs in counts:
            measure("lengths", script, seed, ["--epochs", epochs])


def dimensions(seed):
    for count in ("10", "32"):
        measure("dimensions", VAE, seed, ["--latent-dim", count, "--epochs", "10"])


def binarized(seed):
    for count in ("2", "10", "20"):
        words = ["--latent-dim", count, "--epochs", "48", "--learning-rate", "0.002"]
        measure("binarized", VAE, seed, [*words, "--importance-samples", "500"], "binarized")


def corruptions(seed):
    for kind in ("masking", "salt-and-pepper"):
        measure("corruptions", DENOISER, seed, ["--corruption", kind])


def small(seed):
    for script in PATHS:
        measure("small", script, seed, [], "small")


def keras_vae(seed):
    words = ["--batch-size", "128", "--epochs", "30"]
    measure("keras-vae", VAE, seed, words, "keras-vae", "keras-vae")


def keras_denoiser(seed):
    words = ["--batch-size", "128", "--epochs", "100"]
    measure("keras-denoiser", DENOISER, seed, words, "keras-denoiser", "keras-denoiser")


# ---- Levels of noise, and speed ------------------------------------------------------------------


def psnr_at(level, folder, seed):
    """Return the metrics of a denoiser on test digits with a level of noise."""
    script = load(DENOISER)
    test = script.split_images(script.load_arrays("mnist"), "mnist")[2]

    def noisy_batch(images, batch_seed):
        return script.noisy_batch(images, batch_seed, "gaussian", [float(level)])

    batches = script.eval_batches(test, seed, "test").map(noisy_batch)
    return script.evaluate(load_model(folder / "model.keras"), batches)


def levels(seed):
    """Train denoisers on one level of noise each, and one on all; test each on every level."""
    for noise in (["0.1", "0.9"], *([level] for level in LEVELS)):
        words = ["--noise", *noise]
        for level in LEVELS:
            key = {"part": "levels", "program": DENOISER, "case": level, "arguments": words}
            if not results.find(**key, seed=seed):
                folder, _ = train(DENOISER, seed, words)
                results.keep(DENOISER, psnr_at(level, folder, seed), **key, seed=seed)


class AboutToTrain(Exception):
    """Ends a script where its training begins; holds the model and the batches."""


def before_training(name):
    """Return the module, the model, the batches and the batch size of a script or an example."""
    from variants import VARIANTS

    script = load(EXAMPLES.get(name, name))
    words = ["--model-dir", str(WORK / "speed" / name), *training.SMOKE]
    if name in EXAMPLES:
        VARIANTS[name](script)
        words += ["--batch-size", "128"]

    def fit(run, batches, *_):
        raise AboutToTrain(run.model, batches.prefetch(4))

    script.TrainingRun.fit = fit
    options = script.parse_options(words)
    try:
        script.main(options)
    except AboutToTrain as found:
        return script, *found.args, options.batch_size


def timed(model, batches, steps):
    """Return the seconds that a number of training steps takes."""
    since = time.perf_counter()
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return time.perf_counter() - since


def speed(_):
    """Time training steps of the scripts alternately with those of the examples."""
    names = [*PATHS, *EXAMPLES]
    if all(results.find(part="speed", program=name) for name in names):
        return
    programs = {name: before_training(name) for name in names}
    rates = {name: [] for name in names}
    steps = {}
    with programs[VAE][0].global_settings(0, bfloat16=False):  # as in a run
        for name, (_, model, batches, _) in programs.items():
            timed(model, batches, 5)  # traces and warms up
            steps[name] = max(1, int(5 * ROUND_SECONDS / timed(model, batches, 5)))
        for _, name in itertools.product(range(ROUNDS), names):
            _, model, batches, size = programs[name]
            rates[name].append(size * steps[name] / timed(model, batches, steps[name]))
    for name, found in rates.items():
        metrics = {"images_per_second": statistics.median(found)}
        metrics |= {"slowest": min(found), "fastest": max(found)}
        results.keep(EXAMPLES.get(name, name), metrics, part="speed", program=name)


# ---- Command line --------------------------------------------------------------------------------

# Name: function of a seed, or the file that has it; number of seeds; minutes on two cores; text.
PARTS = {
    "default": (default, 5, 90, "default runs, with two threads and with one"),
    "long": (long, 3, 70, "96 epochs of the VAE"),
    "lengths": (lengths, 1, 11, "shorter runs, for the curve of quality against time"),
    "small": (small, 3, 12, "models of at most the size of the Keras examples"),
    "keras-vae": (keras_vae, 3, 20, "the Keras VAE example"),
    "keras-denoiser": (keras_denoiser, 3, 65, "the Keras denoising example"),
    "dimensions": (dimensions, 3, 30, "VAEs with 10 and with 32 dimensions"),
    "binarized": (binarized, 3, 180, "VAEs with 2, 10 and 20 dimensions on binarized digits"),
    "corruptions": (corruptions, 3, 20, "masking, and salt-and-pepper"),
    "levels": (levels, 3, 55, "noise from 0.1 to 0.9: a model for each level, one for all"),
    "photograph": ("photograph.measure_all", 3, 75, "a photograph, and classical methods"),
    "noisy-only": ("noisy_only.measure_all", 3, 75, "trained on noisy images alone"),
    "documents": ("documents.measure_all", 3, 20, "synthetic degraded documents; needs Tesseract"),
    "own": ("own_pictures.measure_all", 1, 35, "RGB pictures, from 300 to 50,000"),
    "representations": (
        "representations.measure_codes",
        1,
        15,
        "linear probes, few labels, clusters",
    ),
    "one-class": ("representations.measure_one_class", 1, 5, "one-class anomaly detection"),
    "pretraining": ("representations.measure_pretraining", 1, 80, "fine-tuned encoders"),
    "speed": (speed, 1, 4, "training steps, compared with the Keras examples"),
}


def main():
    rows = ["parts, with minutes on two cores:"]
    rows += [f"  {name:16}{minutes:4}  {text}" for name, (_, _, minutes, text) in PARTS.items()]
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART")
    text = "try the parts on few images; the results go to work/smoke.jsonl"
    parser.add_argument("--smoke", action="store_true", help=text)
    options = parser.parse_args()
    os.environ.update(environment_of(results.THREADS))  # before TensorFlow is imported
    WORK.mkdir(exist_ok=True)
    if options.smoke:
        results.FILE = WORK / "smoke.jsonl"
        training.SMOKE += ["--limit", "500", "--epochs", "1", "--batch-size", "32"]
    for name in options.parts:
        function, seeds, _, text = PARTS[name]
        if isinstance(function, str):
            module, _, name_in_file = function.partition(".")
            function = getattr(importlib.import_module(module), name_in_file)
        for seed in range(1 if options.smoke else seeds):
            print(f"{name}, seed {seed}: {text}", flush=True)
            function(seed)


if __name__ == "__main__":
    main()
