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
import shutil
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
WORK = HERE / "work"  # models and checkpoints; not under version control
DENOISER, VAE = "StackedDenoisingAutoEncoder", "VariationalAutoEncoder_tf2"
SCRIPTS = {DENOISER: HERE.parent / f"{DENOISER}.py", VAE: HERE.parent / f"{VAE}.py"}
NOT_KEPT = ("model_dir", "images_dir", "data", "settings")  # of metrics.json; the key has them
SECONDS = 4  # of each program in a round of the part speed, about
BUDGETS = (["--epochs", "1"], ["--epochs", "2"])  # shorter runs
OURS_SEEDS = (0, 1, 2)
SPREAD_SEEDS = (0, 1, 2, 3, 4)  # of the part spread, each with two threads and with one
LARGE = {"uint8": 202_599, "float32": 50_000}  # images of 64 x 64 x 3; the first as in CelebA
BINARIZED_DIMS = (2, 10, 20)
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of Gaussian noise
NOISES = (["--noise", "0.1", "0.9"], *(["--noise", str(level)] for level in LEVELS))
CORRUPTIONS = (["--corruption", "masking"], ["--corruption", "salt-and-pepper"])
LONG = ["--epochs", "96", "--learning-rate", "0.002"]
BINARIZED = ["--epochs", "48", "--learning-rate", "0.002"]
DIMENSIONS = (["--latent-dim", "10", "--epochs", "10"], ["--latent-dim", "32", "--epochs", "10"])

# ---- Results -------------------------------------------------------------------------------------


def machine(environment=os.environ):
    """Return what a result of a process in that environment depends on: processor and versions."""
    from importlib.metadata import version

    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": int(environment.get("TF_NUM_INTRAOP_THREADS", os.cpu_count())),
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


def keep(environment=os.environ, **line):
    line |= {"machine": machine(environment), "date": time.strftime("%Y-%m-%d")}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print({name: value for name, value in line.items() if name not in ("machine", "history")})


# ---- The two scripts, as commands ----------------------------------------------------------------


def folder_of(script, seed, words):
    """Return the folder of a run's models; the words tell runs of a seed apart."""
    return WORK / "-".join([script, f"seed{seed}", *words]).replace("---", "-")


def has_checkpoint(folder):
    """Tell whether an unfinished run left a checkpoint there, of any version of the scripts."""
    return any(folder.glob("checkpoints/epoch-*"))


def run_script(key, folder, environment, path):
    """Run a script as a user does; keep its metrics, its time as a process and its peak memory.

    Args:
        key: tells the result from others: part, program, seed, arguments, and further fields.
        folder: for the models and pictures.
        environment: variables of the process.
        path: of the script.
    """
    if is_done(**key):
        return
    script = key["program"]
    command = [sys.executable, path, "--seed", str(key["seed"]), *key["arguments"]]
    command += ["--model-dir", folder, "--images-dir", folder]
    resumed = has_checkpoint(folder)
    if resumed:
        command.append("--resume")
    since = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {script} ended with status {os.waitstatus_to_exitcode(status)}")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics = {name: metrics[name] for name in metrics if name not in NOT_KEPT}
    history = (folder / "history.csv").read_text()
    seconds = None if resumed else round(time.perf_counter() - since, 1)
    memory = None if resumed else usage.ru_maxrss * 1024 / 1e9  # GB; Linux counts in KiB
    found = {"metrics": metrics, "process_seconds": seconds, "memory": memory, "history": history}
    keep(environment, **key, **found)


def plain_run(part, script, seed, arguments):
    """Run a script with arguments, in the environment of this process."""
    key = {"part": part, "program": script, "seed": seed, "arguments": arguments}
    run_script(key, folder_of(script, seed, arguments), os.environ, SCRIPTS[script])


def runs(part, scripts, *argument_lists):
    """Return the function of a part that runs scripts with each list of arguments."""

    def run(options):
        for seed in options.seeds:
            for script in scripts:
                for arguments in argument_lists:
                    plain_run(part, script, seed, arguments)

    return run


def with_threads(threads):
    """Return the environment of a process with so many threads."""
    environment = dict(os.environ)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        environment[name] = str(threads)
    return environment


def spread(options):
    """Make the default runs behind the expected results, with two threads and with one.

    Those of the part ours are among them, and keep that part's name.
    """
    for threads in (2, 1):
        for seed in SPREAD_SEEDS:
            for script in SCRIPTS:
                if threads == 2 and seed in OURS_SEEDS:
                    plain_run("ours", script, seed, [])
                    continue
                key = {"part": "spread", "program": script, "seed": seed, "arguments": []}
                folder = folder_of(script, seed, [f"threads{threads}"])
                key["threads"] = threads
                run_script(key, folder, with_threads(threads), SCRIPTS[script])


# ---- Noise of several levels ---------------------------------------------------------------------


def levels(options):
    """Train denoisers on one level of noise each, and one on all; test each on every level."""
    script = load(DENOISER)
    test = load_splits(script)[2]
    for seed in options.seeds:
        for arguments in NOISES:
            plain_run("levels", DENOISER, seed, arguments)
            path = folder_of(DENOISER, seed, arguments) / "model.keras"
            for level in LEVELS:
                key = {"part": "level", "seed": seed, "arguments": arguments, "level": level}
                if is_done(**key):
                    continue
                model = script.keras.models.load_model(path)
                batch = partial(script.noisy_batch, corruption="gaussian", levels=[level])
                dataset = script.eval_batches(test, seed, "test").map(batch)
                keep(**key, metrics=script.evaluate(model, dataset))


# ---- Synthetic degraded documents ----------------------------------------------------------------


def documents(options):
    """Run the example that trains on degraded pages; keep what documents.py measures."""
    if is_done(part="documents"):
        return
    if not shutil.which("tesseract"):
        sys.exit("error: the part documents needs Tesseract; Debian has it as tesseract-ocr")
    import documents as measures

    folder = WORK / "documents"
    script = HERE.parent / "examples" / "clean_documents.py"
    since = time.perf_counter()
    status = subprocess.run([sys.executable, script, "train", "--output", folder]).returncode
    if status:
        sys.exit(status)
    rows = measures.measure_all(folder)
    fonts = measures.error_rates_by_font(folder)
    seconds = round(time.perf_counter() - since, 1)
    version = measures.tesseract_version()
    keep(part="documents", process_seconds=seconds, methods=rows, fonts=fonts, tesseract=version)
    measures.draw_pages(folder)


# ---- Baselines ----------------------------------------------------------------------------------


def load(script):
    """Return a script as a module, for its data, its loss and its evaluation."""
    spec = importlib.util.spec_from_file_location(script, SCRIPTS[script])
    module = sys.modules[script] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_splits(script, source="mnist"):
    """Return training, validation and test images, uint8, and the labels of the test images."""
    return script.split_images(script.load_arrays(source), source)


def keras_vae(script, shape=(28, 28, 1), latent_dim=2):
    """Return the model of the Keras VAE example, with its 16 wide bottleneck before the code.

    https://keras.io/examples/generative/vae/
    """
    keras, layers = script.keras, script.layers
    settings = {"strides": 2, "padding": "same", "activation": "relu"}
    height, width = (side // 4 for side in shape[:2])  # 7, 7
    x = image = keras.Input(shape)
    x = layers.Conv2D(32, 3, **settings)(x)
    x = layers.Conv2D(64, 3, **settings)(x)
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    # The example's layer gives log sigma^2; ours is half of that.
    encoder = keras.Model(image, [layers.Dense(latent_dim)(x), 0.5 * layers.Dense(latent_dim)(x)])
    x = z = keras.Input((latent_dim,))
    x = layers.Dense(height * width * 64, activation="relu")(x)
    x = layers.Reshape((height, width, 64))(x)
    x = layers.Conv2DTranspose(64, 3, **settings)(x)
    x = layers.Conv2DTranspose(32, 3, **settings)(x)
    x = layers.Conv2DTranspose(shape[2], 3, padding="same")(x)
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


def eval_batch(script, kind):
    """Return the function that makes a batch for a baseline, and for any validation."""
    if kind == VAE:
        return partial(script.vae_batch, latent_dim=2)
    return partial(script.noisy_batch, corruption="gaussian", levels=[script.NOISE])


def train_batch(script, kind):
    """Return the function that makes a batch for the training of our recipes."""
    if kind == VAE:
        return partial(script.vae_batch, latent_dim=2, is_mixed=script.sizes_of(2).is_mixed)
    return partial(script.augmented_batch, corruption="gaussian", levels=[script.NOISE])


def compile_model(script, kind, model, optimizer):
    """Compile a model as its script does, with an optimizer of its own."""
    if kind == VAE:
        model.compile(optimizer)
    else:
        loss = script.keras.losses.BinaryCrossentropy(from_logits=True)
        metric = script.keras.metrics.MeanMetricWrapper(script.psnr, name="psnr")
        model.compile(optimizer, loss=loss, metrics=[metric])
    model.optimizer.build(model.trainable_variables)


def parameters(model):
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def options_of(script, folder, seed, *arguments):
    """Return the options of a training in a folder."""
    return script.parse_options(["--seed", str(seed), "--model-dir", str(folder), *arguments])


def rate_of(script, options, image_count):
    """Return the schedule of the learning rate of a training."""
    steps = options.epochs * (image_count // options.batch_size)
    return script.learning_rate(options.learning_rate, steps)


def train(script, model, options, images, make_batch, validation, validation_dataset):
    """Train a compiled model as its script does; return the finished run.

    It continues after the last checkpoint in its folder.

    Args:
        images: for the training, uint8.
        make_batch: function of images in [0, 1] and a seed.
        validation: the images of `validation_dataset`, uint8.
    """
    run = script.TrainingRun(
        model, options.model_dir, script.run_settings(options, images, validation)
    )
    run.folder.mkdir(parents=True, exist_ok=True)
    run.restore(resume=True)
    size, seed, epochs = options.batch_size, options.seed, options.epochs
    batches = script.train_batches(images, size, seed, run.done, epochs).map(make_batch)
    run.fit(batches, validation_dataset, epochs, len(images) // size, [])
    return run


def final_metrics(script, kind, model, test, seed, run):
    """Return a script's metrics of a model that gives logits, on the test images."""
    if kind == VAE:
        found = script.evaluate(model.encoder, model.decoder_logits, test, 50, seed)
    else:
        probabilities = script.layers.Activation("sigmoid")(model.output)
        denoiser = script.keras.Model(model.input, probabilities)
        test_dataset = script.eval_batches(test, seed, "test").map(eval_batch(script, kind))
        found = script.evaluate(denoiser, test_dataset)
    found |= {"train_seconds": run.seconds, "epochs": len(run.history["loss"])}
    return found | {"parameters": parameters(model)}


def baseline(name, options):
    """Train a baseline on all 60,000 digits, with the test metrics after every epoch."""
    kind, build, rate, batch_size, epochs = BASELINES[name]
    epochs = min(epochs, options.epochs or epochs)  # the rate is constant, so this only ends sooner
    script = load(kind)
    images, validation, test, _ = load_splits(script)
    images = script.np.concatenate([images, validation])
    make_batch = eval_batch(script, kind)
    sizes = ["--batch-size", str(batch_size), "--epochs", str(epochs)]
    for seed in options.seeds:
        if is_done(part="baseline", program=name, seed=seed):
            continue
        script_options = options_of(script, WORK / f"{name}-seed{seed}", seed, *sizes)
        with script.global_settings(seed, bfloat16=False):
            model = build(script)
            compile_model(script, kind, model, script.keras.optimizers.Adam(rate))
            # the test images in place of validation images
            dataset = script.eval_batches(test, seed, "test").map(make_batch)
            run = train(script, model, script_options, images, make_batch, test, dataset)
            metrics = final_metrics(script, kind, model, test, seed, run)
        keep(part="baseline", program=name, seed=seed, metrics=metrics, history=run.history)
        run.remove_checkpoints()


# ---- Our recipes with small models ---------------------------------------------------------------

LIMITS = {VAE: 134_165, DENOISER: 28_353}  # parameters of the Keras examples


def small_vae(script, pixel_mean):
    """Return encoder and decoder like the script's, with a quarter of its channels and units."""
    keras, layers = script.keras, script.layers
    strided = {"strides": 2, "padding": "same"}
    x = image = keras.Input((28, 28, 1))
    for level, filters in enumerate((8, 16, 32)):  # to (n, 4, 4, 32)
        x = layers.Conv2D(filters, 3, name=f"conv{level}", **strided, **script.RELU)(x)
    x = layers.Flatten()(x)
    for units in (64, 32):
        x = layers.Dense(units)(x)
        x = layers.LayerNormalization()(x)
        x = layers.ReLU()(x)
    z_mean = layers.Dense(2)(x)
    start = keras.initializers.Constant(script.START_LOG_SIGMA)
    z_log_sigma = layers.Dense(2, bias_initializer=start)(x)
    encoder = keras.Model(image, [z_mean, z_log_sigma], name="encoder")
    first = encoder.get_layer("conv0")  # patches of the mean brightness start at zero
    first.bias.assign(-pixel_mean * keras.ops.sum(first.kernel, axis=(0, 1, 2)))
    x = z = keras.Input((2,))
    frequencies = keras.initializers.RandomNormal(stddev=script.sizes_of(2).fourier_scale)
    phases = keras.initializers.RandomUniform(-math.pi, math.pi)
    x = layers.Dense(128, kernel_initializer=frequencies, bias_initializer=phases)(x)
    x = keras.ops.sin(x)
    for _ in range(2):
        x = layers.Dense(128, **script.RELU)(x)
    x = layers.Dense(7 * 7 * 8, **script.RELU)(x)
    x = layers.Reshape((7, 7, 8))(x)
    x = layers.Conv2DTranspose(4, 3, **strided, **script.RELU)(x)  # (n, 14, 14, 4)
    odds = max(pixel_mean, 0.01) / max(1 - pixel_mean, 0.01)
    start = keras.initializers.Constant(math.log(odds))
    x = layers.Conv2DTranspose(1, 3, **strided, bias_initializer=start)(x)  # (n, 28, 28, 1)
    return encoder, keras.Model(z, x, name="decoder_logits")


def small_denoiser(script, pixel_mean):
    """Return encoder and decoder like the script's, with fewer channels: 14, 24 and 8."""
    keras, layers = script.keras, script.layers
    strided = {"strides": 2, "padding": "same"}
    image = keras.Input((None, None, 1))
    black = layers.ReLU()(layers.Rescaling(-50, 1)(image))
    white = layers.ReLU()(layers.Rescaling(50, -49)(image))
    x = layers.Concatenate()([image, black, white])  # (n, 28, 28, 3)
    x = layers.Conv2D(14, 5, **strided, activation="relu")(x)  # (n, 14, 14, 14)
    x = layers.Conv2D(24, 3, **strided, activation="relu")(x)  # (n, 7, 7, 24)
    x = layers.Conv2D(24, 3, padding="same")(x)
    encoder = keras.Model(image, x, name="encoder")
    x = code = keras.Input((None, None, 24))
    for dilation in (1, 3, 1):
        block = layers.Activation("relu")(x)
        block = layers.Conv2D(24, 3, padding="same", dilation_rate=dilation, use_bias=False)(block)
        x = layers.Add()([x, block])
    x = layers.Activation("relu")(x)
    x = layers.Conv2DTranspose(8, 4, **strided, activation="relu")(x)  # (n, 14, 14, 8)
    odds = max(pixel_mean, 0.01) / max(1 - pixel_mean, 0.01)
    start = keras.initializers.Constant(math.log(odds))
    x = layers.Conv2DTranspose(1, 4, **strided, bias_initializer=start)(x)  # (n, 28, 28, 1)
    return encoder, keras.Model(code, x, name="decoder_logits")


def small_model(script, kind, images, rate):
    """Return a small model, compiled as its script compiles the full one.

    `images` are those for the training, uint8; `rate` is a schedule of the learning rate.
    """
    pixel_mean = float(images.mean() / 255)
    if kind == VAE:
        model = script.VAE(*small_vae(script, pixel_mean))
        optimizer = script.vae_optimizer(rate)
    else:
        encoder, decoder_logits = small_denoiser(script, pixel_mean)
        model = script.keras.Model(encoder.input, decoder_logits(encoder.output))
        optimizer = script.ConvMuon(rate, weight_decay=script.WEIGHT_DECAY)
    if parameters(model) > LIMITS[kind]:
        text = f"a small {kind} must have at most {LIMITS[kind]:,} parameters"
        raise ValueError(f"{text}, found {parameters(model):,}")
    compile_model(script, kind, model, optimizer)
    return model


def small(options):
    """Train models of at most the size of the Keras examples, with our recipes."""
    for kind in SCRIPTS:
        script = load(kind)
        images, validation, test, _ = load_splits(script)
        for seed in options.seeds:
            if is_done(part="small", program=kind, seed=seed):
                continue
            script_options = options_of(script, WORK / f"small-{kind}-seed{seed}", seed)
            with script.global_settings(seed, bfloat16=False):
                rate = rate_of(script, script_options, len(images))
                model = small_model(script, kind, images, rate)
                dataset = script.eval_batches(validation, seed, "validation")
                dataset = dataset.map(eval_batch(script, kind))
                make_batch = train_batch(script, kind)
                run = train(script, model, script_options, images, make_batch, validation, dataset)
                run.load_best_weights()
                metrics = final_metrics(script, kind, model, test, seed, run)
            keep(part="small", program=kind, seed=seed, metrics=metrics, history=run.history)
            run.remove_checkpoints()


# ---- Likelihood of a VAE on the plane ------------------------------------------------------------


def log_likelihood_by_quadrature(script, decoder_logits, images, extent=6.0, step=0.02):
    """Return log p(x) in nats of each image, the integral of p(x|z) p(z) over a grid of the plane.

    log p(x|z) of all images at all grid points is one matrix product, for a slice of the grid at a
    time: x * logit summed over pixels, minus the softplus, which does not depend on the image.

    Args:
        decoder_logits: from z (n, 2) to logits.
        images: float32 (n, pixels), in [0, 1].
    """
    tf, np = script.tf, script.np
    axis = np.arange(-extent, extent + step / 2, step)
    total = tf.fill(len(images), -np.inf)
    for x in axis:
        z = tf.constant(np.stack([np.full_like(axis, x), axis], axis=1), tf.float32)
        logits = tf.reshape(decoder_logits(z), (len(axis), -1))
        log_prior = -tf.reduce_sum(z**2 + math.log(2 * math.pi), axis=1) / 2
        total_softplus = tf.reduce_sum(tf.nn.softplus(logits), axis=1)
        joint = tf.matmul(images, logits, transpose_b=True) + log_prior - total_softplus
        total = tf.reduce_logsumexp(tf.stack([total, tf.reduce_logsumexp(joint, axis=1)]), axis=0)
    return total.numpy() + 2 * math.log(step)


def binarized_once(script, images):
    """Return uint8 images with each pixel drawn as 0 or 255, always in the same way."""
    draw = script.np.random.default_rng(0)
    return script.np.uint8(255 * (draw.random(images.shape) < images / 255))


def likelihood(options):
    """Compare the IWAE bound of trained VAEs with the integral, and grey with binary digits."""
    script = load(VAE)
    tf = script.tf
    grey = load_splits(script)[2]
    binary = binarized_once(script, grey)
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
        decoder_logits = script.keras.Model(decoder.input, decoder.layers[-1].input)
        found = script.evaluate(encoder, decoder_logits, grey, 500, line["seed"])
        flat = tf.constant(grey.reshape(len(grey), -1) / 255, tf.float32)
        quadrature = log_likelihood_by_quadrature(script, decoder_logits, flat)
        on_binary = script.evaluate(encoder, decoder_logits, binary, 50, 0)
        keep(**key, metrics=found, quadrature=float(quadrature.mean()), binary=on_binary)


# ---- Binarized digits, as in papers --------------------------------------------------------------


def binary_batch(images, seed, script, latent_dim):
    """Return a batch of the VAE with each pixel of the images drawn anew as 0 or 1."""
    tf = script.tf
    pixel_seed, epsilon_seed = tf.unstack(tf.random.split(seed))
    draws = tf.random.stateless_uniform(tf.shape(images), pixel_seed)
    return script.vae_batch(tf.cast(draws < images, tf.float32), epsilon_seed, latent_dim)


def binarized(options):
    """Train long on digits binarized anew in every batch; test on digits binarized once."""
    script = load(VAE)
    images, validation, test, _ = load_splits(script)
    for latent_dim in BINARIZED_DIMS:
        words = [*BINARIZED, "--latent-dim", str(latent_dim)]
        make_batch = partial(binary_batch, script=script, latent_dim=latent_dim)
        for seed in options.seeds:
            if is_done(part="binarized", latent_dim=latent_dim, seed=seed):
                continue
            folder = WORK / f"binarized{latent_dim}-seed{seed}"
            script_options = options_of(script, folder, seed, *words)
            with script.global_settings(seed, bfloat16=False):
                rate = rate_of(script, script_options, len(images))
                model = script.build_vae(images, latent_dim, script_options.beta, rate)
                dataset = script.eval_batches(validation, seed, "validation").map(make_batch)
                run = train(script, model, script_options, images, make_batch, validation, dataset)
                run.load_best_weights()
                networks = (model.encoder, model.decoder_logits)
                metrics = script.evaluate(*networks, binarized_once(script, test), 500, seed)
            metrics |= {"train_seconds": run.seconds, "epochs": script_options.epochs}
            metrics |= {"parameters": parameters(model)}
            keep(part="binarized", latent_dim=latent_dim, seed=seed, metrics=metrics)
            run.remove_checkpoints()


def own(options):
    """Train on colour drawings: see own_pictures.py."""
    import own_pictures

    own_pictures.main(options)


# ---- Speed ---------------------------------------------------------------------------------------


def programs(images):
    """Yield (name, compiled model, batch size, batches) of the trainings to be timed."""
    for kind in SCRIPTS:
        script = load(kind)
        options = script.parse_options([])
        rate = rate_of(script, options, len(images))
        if kind == VAE:
            model = script.build_vae(images, options.latent_dim, options.beta, rate)
        else:
            _, model = script.build_denoiser(images, rate)
        batches = script.train_batches(images, options.batch_size, 0, 0, options.epochs)
        yield kind, model, options.batch_size, batches.map(train_batch(script, kind))
    for name, (kind, build, rate, batch_size, epochs) in BASELINES.items():
        script = sys.modules[kind]
        model = build(script)
        compile_model(script, kind, model, script.keras.optimizers.Adam(rate))
        batches = script.train_batches(images, batch_size, 0, 0, epochs)
        yield name, model, batch_size, batches.map(eval_batch(script, kind))


def timed(model, batches, steps):
    """Return the seconds that a number of training steps takes."""
    since = time.perf_counter()
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return time.perf_counter() - since


def same_batches_again(batches):
    """Return a data set of the first batches again and again, which take no time to make.

    Of a single batch, which a model soon learns by heart, steps took up to twice as long.
    """
    return batches.take(100).cache().repeat()


def speed(options):
    """Time our scripts alternately with the baselines, seven rounds.

    Each also trains on the same batches again and again: where that is faster, the device waits for
    the input pipeline, which draws noise and epsilon on the CPU.
    """
    if is_done(part="speed", machine=machine()):
        return
    made = []
    script = load(VAE)
    images = load_splits(script)[0]
    for name, model, batch_size, batches in programs(images):
        data = {"rates": batches.repeat(), "compute_rates": same_batches_again(batches)}
        timed(model, data["rates"], 10)  # traces and warms up
        timed(model, data["compute_rates"], 100)  # makes the batches
        steps = math.ceil(10 * SECONDS / timed(model, data["rates"], 10))
        found = {kind: [] for kind in data}
        made.append((name, model, batch_size, steps, data, found))
    for number in range(7):
        print(f"round {number + 1} of 7", flush=True)
        for _, model, batch_size, steps, data, found in made:
            for kind, batches in data.items():
                found[kind].append(steps * batch_size / timed(model, batches, steps))
    devices = [device.device_type for device in script.tf.config.list_logical_devices()]
    for name, model, *_, found in made:
        rate = statistics.median(found["rates"])
        compute_rate = statistics.median(found["compute_rates"])
        waits = 1 - rate / compute_rate
        print(f"{name}: {rate:,.0f} images a second; {max(0, waits):.0%} of it waits for input")
        keep(
            part="speed",
            program=name,
            devices=devices,
            images_per_second=rate,
            compute_images_per_second=compute_rate,
            parameters=parameters(model),
            **found,
        )


# ---- Memory --------------------------------------------------------------------------------------


def memory(options):
    """Measure the peak memory of both scripts with large arrays, which are made on the spot."""
    import numpy as np

    draw = np.random.default_rng(0)
    few = draw.integers(0, 256, (1000, 64, 64, 3), dtype=np.uint8)
    for dtype, count in LARGE.items():
        path = WORK / f"{dtype}.npz"
        images = np.empty((count, 64, 64, 3), dtype)
        for start in range(0, count, len(few)):
            part = images[start : start + len(few)]
            part[:] = few[: len(part)] / (255 if dtype == "float32" else 1)
        size = images.nbytes / 1e9
        np.savez(path, x_train=images)
        del images
        for program, script in SCRIPTS.items():
            if is_done(part="memory", program=program, dtype=dtype):
                continue
            folder = WORK / f"memory-{program}"
            words = ["--data", path, "--limit", "3200", "--epochs", "1", "--model-dir", folder]
            process = subprocess.Popen([sys.executable, script, *words])
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit(f"error: {program} ended with status {os.waitstatus_to_exitcode(status)}")
            peak = usage.ru_maxrss * 1024 / 1e9  # GB; Linux counts in KiB
            keep(part="memory", program=program, dtype=dtype, count=count, images=size, memory=peak)
        path.unlink()


# ---- Command line --------------------------------------------------------------------------------

PARTS = {
    "ours": (runs("ours", SCRIPTS, []), "default runs of both scripts: about 7 minutes a seed"),
    "long": (runs("long", [VAE], LONG), "long runs of the VAE: about 25 minutes a seed"),
    "budgets": (runs("budgets", SCRIPTS, *BUDGETS), "shorter runs: about 6 minutes a seed"),
    "keras-vae": (partial(baseline, "keras-vae"), "30 epochs: about 10 minutes a seed"),
    "keras-denoiser": (partial(baseline, "keras-denoiser"), "100 epochs: half an hour a seed"),
    "older-denoiser": (partial(baseline, "older-denoiser"), "25 epochs: about an hour a seed"),
    "likelihood": (likelihood, "IWAE bound, quadrature, binary digits: 3 minutes a model"),
    "binarized": (binarized, "2, 10, 20 dimensions on binarized digits: an hour and more a seed"),
    "dimensions": (
        runs("dimensions", [VAE], *DIMENSIONS),
        "10 epochs with 10 and with 32 dimensions: 10 minutes a seed",
    ),
    "own": (own, "colour drawings, by four VAEs: about a quarter of an hour"),
    "levels": (levels, "six denoisers, for levels of noise from 0.1 to 0.9: half an hour a seed"),
    "corruptions": (
        runs("corruptions", [DENOISER], *CORRUPTIONS),
        "masking, and salt-and-pepper: 6 minutes a seed",
    ),
    "documents": (documents, "degraded pages of text, cleaned: 10 minutes; needs Tesseract"),
    "small": (small, "our recipes with small models: about 4 minutes a seed"),
    "spread": (spread, "default runs, seeds 0 to 4, one and two threads: about two hours"),
    "speed": (speed, "all trainings, timed alternately, and what they wait for: 10 minutes"),
    "memory": (memory, "both scripts with arrays of 2.5 GB: about 5 minutes"),
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="parts: " + "; ".join(f"{name}: {text}" for name, (_, text) in PARTS.items()),
    )
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="part")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[*OURS_SEEDS], help="of all parts but spread"
    )
    parser.add_argument("--epochs", type=int, help="end baselines after N epochs")
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    for name in options.parts:
        function, text = PARTS[name]
        print(f"{name}: {text}", flush=True)
        function(options)


if __name__ == "__main__":
    main()
