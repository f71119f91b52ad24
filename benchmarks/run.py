"""Measures what RESULTS.md reports: the two scripts and their baselines.

    python benchmarks/run.py --help                  # the parts, and how long each takes
    python benchmarks/run.py ours --seeds 0 1 2
    python benchmarks/tables.py                      # writes RESULTS.md and its figure

Every result is a line of benchmarks/results.jsonl, with its seed, versions and machine. A result
that has a line is not measured again; a stopped training continues after its last finished epoch.
"""

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
WORK = HERE / "work"  # models and checkpoints; not under version control
DENOISER, VAE = "StackedDenoisingAutoEncoder", "VariationalAutoEncoder_tf2"
SCRIPTS = {DENOISER: HERE.parent / f"{DENOISER}.py", VAE: HERE.parent / f"{VAE}.py"}
SECONDS = 4  # of each program in a round of the part speed, about
BUDGETS = (["--epochs", "1"], ["--epochs", "2"])  # shorter runs
LONG = ["--epochs", "48", "--learning-rate", "0.002"]

# ---- Results -------------------------------------------------------------------------------------


def machine():
    """Return what a time depends on: processor, cores and versions."""
    from importlib.metadata import version

    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS", os.cpu_count())),
        "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "keras", "numpy")},
    }


def results():
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [json.loads(line) for line in lines]


def is_done(**key):
    """Tell whether there is a result of that key; say so where there is."""
    found = any(all(line.get(k) == v for k, v in key.items()) for line in results())
    if found:
        print(f"done before: {key}")
    return found


def keep(**line):
    line |= {"machine": machine(), "date": time.strftime("%Y-%m-%d")}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print({name: value for name, value in line.items() if name not in ("machine", "history")})


# ---- The two scripts, as commands ----------------------------------------------------------------


def folder_of(script, seed, arguments):
    """Return the folder of a run's models."""
    return WORK / "-".join([script, f"seed{seed}", *arguments]).replace("---", "-")


def run_script(part, script, seed, *arguments):
    """Run a script as a user does; keep its metrics, its time as a process and its peak memory."""
    key = {"part": part, "program": script, "seed": seed, "arguments": [*arguments]}
    if is_done(**key):
        return
    folder = folder_of(script, seed, arguments)
    arguments = ["--seed", str(seed), *arguments]
    command = [sys.executable, SCRIPTS[script], *arguments]
    command += ["--model-dir", folder, "--images-dir", folder]
    resumed = any(folder.glob("checkpoints/epoch-*.index"))
    since = time.perf_counter()
    process = subprocess.Popen(command + ["--resume"] * resumed)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {script} ended with status {os.waitstatus_to_exitcode(status)}")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics = {name: metrics[name] for name in metrics if not name.endswith("_dir")}
    history = (folder / "history.csv").read_text()
    seconds = None if resumed else round(time.perf_counter() - since, 1)
    memory = None if resumed else usage.ru_maxrss * 1024 / 1e9  # GB; Linux counts in KiB
    keep(**key, metrics=metrics, process_seconds=seconds, memory=memory, history=history)


def runs(part, scripts, *argument_lists):
    """Return the function of a part that runs scripts with each list of arguments."""

    def run(options):
        for seed in options.seeds:
            for script in scripts:
                for arguments in argument_lists:
                    run_script(part, script, seed, *arguments)

    return run


# ---- Baselines ----------------------------------------------------------------------------------


def load(script):
    """Return a script as a module, for its data, its loss and its evaluation."""
    spec = importlib.util.spec_from_file_location(script, SCRIPTS[script])
    module = sys.modules[script] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def keras_vae(script):
    """Return the model of the Keras VAE example, with its 16 wide bottleneck before the plane.

    https://keras.io/examples/generative/vae/
    """
    keras, layers = script.keras, script.layers
    settings = {"strides": 2, "padding": "same", "activation": "relu"}
    x = image = keras.Input((28, 28, 1))
    x = layers.Conv2D(32, 3, **settings)(x)
    x = layers.Conv2D(64, 3, **settings)(x)
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    # The example's layer gives log sigma^2; ours is half of that.
    encoder = keras.Model(image, [layers.Dense(2)(x), 0.5 * layers.Dense(2)(x)])
    x = z = keras.Input((2,))
    x = layers.Dense(7 * 7 * 64, activation="relu")(x)
    x = layers.Reshape((7, 7, 64))(x)
    x = layers.Conv2DTranspose(64, 3, **settings)(x)
    x = layers.Conv2DTranspose(32, 3, **settings)(x)
    x = layers.Conv2DTranspose(1, 3, padding="same")(x)
    return script.VAE(encoder, keras.Model(z, x))


def keras_denoiser(script):
    """Return the model of the Keras denoising example: https://keras.io/examples/vision/autoencoder/"""
    layers = script.layers
    settings = {"padding": "same", "activation": "relu"}
    x = image = script.keras.Input((28, 28, 1))
    for _ in range(2):
        x = layers.Conv2D(32, 3, **settings)(x)
        x = layers.MaxPooling2D(2, padding="same")(x)
    for _ in range(2):
        x = layers.Conv2DTranspose(32, 3, strides=2, **settings)(x)
    x = layers.Conv2D(1, 3, padding="same")(x)
    return script.keras.Model(image, x)


def older_denoiser(script):
    """Return the 5x5 denoiser with 64 filters throughout, of older tutorials."""
    layers = script.layers
    settings = {"padding": "same", "activation": "relu"}
    x = image = script.keras.Input((28, 28, 1))
    x = layers.Conv2D(64, 5, **settings)(x)
    for _ in range(2):
        x = layers.Conv2D(64, 5, **settings)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(64, 5, **settings)(x)
    for _ in range(2):
        x = layers.Conv2DTranspose(64, 5, strides=2, **settings)(x)
    x = layers.Conv2D(1, 5, padding="same")(x)
    return script.keras.Model(image, x)


BASELINES = {  # name: script whose data, loss and evaluation it shares, model, rate, batch, epochs
    "keras-vae": (VAE, keras_vae, 1e-3, 128, 30),
    "keras-denoiser": (DENOISER, keras_denoiser, 1e-3, 128, 100),
    "older-denoiser": (DENOISER, older_denoiser, 1e-5, 64, 25),
}


def prepared(script, kind, ours=False):
    """Return what makes a batch for a kind of model: see `train_dataset` in the scripts."""

    def noisy_and_clean(clean, seed):
        clean = script.mosaics(clean, seed) if ours else clean
        return script.add_noise(clean, 0.5, seed), clean

    return noisy_and_clean if kind == DENOISER else None


def compile_model(script, kind, model, optimizer):
    """Compile a model as its script does."""
    settings = {}
    if kind == DENOISER:
        settings["loss"] = script.keras.losses.BinaryCrossentropy(from_logits=True)
        settings["metrics"] = [script.keras.metrics.MeanMetricWrapper(script.psnr, name="psnr")]
    model.compile(optimizer, **settings)
    model.optimizer.build(model.trainable_variables)


def parameters(model):
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def baseline(name, options):
    """Train a baseline on all 60,000 digits, with the test metrics after every epoch."""
    kind, build, rate, batch_size, epochs = BASELINES[name]
    epochs = min(epochs, options.epochs or epochs)  # the rate is constant, so this only ends sooner
    script = load(kind)
    for seed in options.seeds:
        if is_done(part="baseline", program=name, seed=seed):
            continue
        script.keras.utils.clear_session()  # or a resumed run's layers would have other names
        script.keras.utils.set_random_seed(seed)
        *train, test, _ = script.load_images("mnist", 10**9)
        train, model = script.np.concatenate(train), build(script)
        compile_model(script, kind, model, script.keras.optimizers.Adam(rate))
        run = script.parse_options(["--seed", str(seed), "--batch-size", str(batch_size)])
        run.epochs, run.model_dir = epochs, WORK / f"{name}-seed{seed}"
        networks = [model.encoder, model.decoder] if kind == VAE else [model]
        checkpoints = script.CheckpointCallback(model, networks, train, run)
        first = checkpoints.restore(any(checkpoints.paths()))
        prepare = prepared(script, kind)
        model.fit(
            script.train_dataset(train, prepare, run, first),
            initial_epoch=first,
            epochs=epochs,
            steps_per_epoch=len(train) // batch_size,
            validation_data=script.eval_dataset(test, prepare, seed, "test"),
            callbacks=[checkpoints],
            shuffle=False,
            verbose=2,
        )
        if kind == DENOISER:
            probabilities = script.layers.Activation("sigmoid")(model.output)
            model = script.keras.Model(model.input, probabilities)
            metrics = script.evaluate(model, script.eval_dataset(test, prepare, seed, "test"))
        else:
            metrics = script.evaluate(*networks, test, seed=seed)
        metrics |= {"train_seconds": checkpoints.seconds, "epochs": epochs}
        metrics |= {"parameters": parameters(model)}
        keep(part="baseline", program=name, seed=seed, metrics=metrics, history=checkpoints.history)
        checkpoints.keep(0)


# ---- Likelihood of a VAE on the plane ------------------------------------------------------------


def log_likelihood_by_quadrature(script, decoder, images, extent=6.0, step=0.02):
    """Return log p(x) in nats of each image, the integral of p(x|z) p(z) over a grid of the plane.

    log p(x|z) of all images at all grid points is one matrix product, for a slice of the grid at a
    time: x * logit summed over pixels, minus the softplus, which does not depend on the image.

    Args:
        decoder: from z (n, 2) to logits.
        images: float32 (n, pixels), in [0, 1].
    """
    tf, np = script.tf, script.np
    axis = np.arange(-extent, extent + step / 2, step)
    total = tf.fill(len(images), -np.inf)
    for x in axis:
        z = tf.constant(np.stack([np.full_like(axis, x), axis], axis=1), tf.float32)
        logits = tf.reshape(decoder(z), (len(axis), -1))
        prior = script.log_normal_density(z) - tf.reduce_sum(tf.nn.softplus(logits), axis=1)
        joint = tf.matmul(images, logits, transpose_b=True) + prior  # (images, points)
        total = tf.reduce_logsumexp(tf.stack([total, tf.reduce_logsumexp(joint, axis=1)]), axis=0)
    return total.numpy() + 2 * math.log(step)


def likelihood(options):
    """Compare the IWAE bound of trained VAEs with the integral, and grey with binary digits."""
    script = load(VAE)
    np, tf = script.np, script.tf
    grey = script.load_images("mnist", 10**9)[2]
    draw = np.random.default_rng(0)
    binary = np.uint8(255 * (draw.random(grey.shape) < grey / 255))
    for line in results():
        if line["part"] not in ("ours", "long") or line["program"] != VAE:
            continue
        key = {"part": "likelihood", "of": line["part"]}
        key |= {name: line[name] for name in ("seed", "arguments")}
        if line["seed"] not in options.seeds or is_done(**key):
            continue
        print(key, flush=True)
        folder = folder_of(VAE, line["seed"], line["arguments"])
        names = ("encoder", "decoder")
        encoder, decoder = (script.keras.models.load_model(folder / f"{n}.keras") for n in names)
        logits = script.keras.Model(decoder.input, decoder.layers[-1].input)
        found = script.evaluate(encoder, logits, grey, 500, line["seed"])
        flat = tf.constant(grey.reshape(len(grey), -1) / 255, tf.float32)
        quadrature = log_likelihood_by_quadrature(script, logits, flat)
        on_binary = script.evaluate(encoder, logits, binary)
        keep(**key, metrics=found, quadrature=float(quadrature.mean()), binary=on_binary)


# ---- Speed ---------------------------------------------------------------------------------------


def programs():
    """Yield (name, script, compiled model, batch size) of the trainings to be timed."""
    for kind in SCRIPTS:
        script = load(kind)
        batch_size = script.parse_options([]).batch_size
        shape = (28, 28, 1)
        if kind == VAE:
            model = script.VAE(script.build_encoder(shape, 2), script.build_decoder(shape, 2))
        else:
            encoder, decoder = script.build_encoder(1), script.build_decoder(1)
            model = script.keras.Model(encoder.input, decoder(encoder.output))
        adam = script.keras.optimizers.Adam(1e-3)
        optimizer = adam if kind == VAE else script.ConvMuon(1e-3, rms_rate=None)
        compile_model(script, kind, model, optimizer)
        yield kind, script, model, batch_size
    for name, (kind, build, rate, batch_size, _) in BASELINES.items():
        script = sys.modules[kind]
        model = build(script)
        compile_model(script, kind, model, script.keras.optimizers.Adam(rate))
        yield name, script, model, batch_size


def timed(model, batches, steps):
    """Return the seconds that a number of training steps takes."""
    since = time.perf_counter()
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return time.perf_counter() - since


def speed(options):
    """Time our scripts alternately with the baselines, seven rounds."""
    if is_done(part="speed", machine=machine()):
        return
    made = []
    for name, script, model, batch_size in programs():
        kind = BASELINES[name][0] if name in BASELINES else name
        run = SimpleNamespace(seed=0, batch_size=batch_size, epochs=10)
        train = script.load_images("mnist", 10**9)[0]
        prepare = prepared(script, kind, ours=name in SCRIPTS)
        batches = script.train_dataset(train, prepare, run).repeat()
        timed(model, batches, 10)  # traces and warms up
        steps = math.ceil(10 * SECONDS / timed(model, batches, 10))
        made.append((name, model, batches, batch_size, steps, []))
    for number in range(7):
        print(f"round {number + 1} of 7", flush=True)
        for _, model, batches, batch_size, steps, rates in made:
            rates.append(steps * batch_size / timed(model, batches, steps))
    for name, model, *_, rates in made:
        rate = statistics.median(rates)
        size = parameters(model)
        keep(part="speed", program=name, images_per_second=rate, rates=rates, parameters=size)


# ---- Command line --------------------------------------------------------------------------------

PARTS = {
    "ours": (runs("ours", SCRIPTS, []), "default runs of both scripts: about 6 minutes a seed"),
    "long": (runs("long", [VAE], LONG), "long runs of the VAE: 12 minutes a seed"),
    "budgets": (runs("budgets", SCRIPTS, *BUDGETS), "shorter runs: about 6 minutes a seed"),
    "keras-vae": (partial(baseline, "keras-vae"), "30 epochs: about 10 minutes a seed"),
    "keras-denoiser": (partial(baseline, "keras-denoiser"), "100 epochs: half an hour a seed"),
    "older-denoiser": (partial(baseline, "older-denoiser"), "25 epochs: about an hour a seed"),
    "likelihood": (likelihood, "IWAE bound, quadrature, binary digits: 3 minutes a model"),
    "speed": (speed, "all trainings, timed alternately: about 5 minutes"),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="parts: " + "; ".join(f"{name}: {text}" for name, (_, text) in PARTS.items()),
    )
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="part")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="end baselines after N epochs")
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    for name in options.parts:
        function, text = PARTS[name]
        print(f"{name}: {text}", flush=True)
        function(options)


if __name__ == "__main__":
    main()
