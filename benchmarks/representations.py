"""Measures what codes are good for: probes, few labels, clusters, one class, pretraining.

    python benchmarks/run.py representations one-class pretraining

The encoders are those of default runs, and of VAEs with ten dimensions whose code is z_mean. The
denoiser's code is averaged over 3 x 3 positions. Clusters need the package umap-learn.
"""

import functools

import keras
import numpy as np
import results
from results import DENOISER, VAE
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading
from training import SMOKE, WORK, load_digits, load_model, load_vae, relative, train

LABELLED = 10  # images of each class, where labels are few
GRAPH_IMAGES = 20_000  # training images among which labels spread
NEIGHBOURS = {"n_neighbors": 10}
TEN_DIMENSIONS = ["--latent-dim", "10"]

# ---- Probes, few labels and clusters -------------------------------------------------------------


def denoiser_codes(encoder):
    """Return a model from images (n, 28, 28, 1) to means of the code (n, 576)."""
    image = keras.Input((28, 28, 1))  # the encoder itself takes images of any size
    code = keras.layers.ReLU()(encoder(image))  # (n, 7, 7, 64), as the decoder's first block
    means = keras.layers.AveragePooling2D(3, strides=2)(code)  # (n, 3, 3, 64)
    return keras.Model(image, keras.layers.Flatten()(means))


def all_codes(*images):
    """Return {program: codes of training and of test images}."""
    denoiser = denoiser_codes(load_model(train(DENOISER)[0] / "encoder.keras"))
    vae = load_model(train(VAE, 0, TEN_DIMENSIONS)[0] / "encoder.keras")
    z_mean = keras.Model(vae.input, vae.outputs[0])
    codes = {"pixels": [each.reshape(len(each), -1) for each in images]}
    for program, model in ((DENOISER, denoiser), (VAE, z_mean)):
        codes[program] = [model.predict(each, batch_size=500, verbose=0) for each in images]
    return codes


def first_components(train_codes, test_codes):
    """Return codes of more than 100 numbers as their first principal components."""
    if train_codes.shape[1] <= 100:
        return train_codes, test_codes
    pca = PCA(100, random_state=0).fit(train_codes)
    return pca.transform(train_codes), pca.transform(test_codes)


def choose_labelled(labels, count, seed):
    """Return the indices of `count` images of each class, at random."""
    draw = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in range(10)]
    return np.concatenate([draw.choice(each, count, replace=False) for each in classes])


def probe(codes, y_train, y_test, _):
    """Return the accuracy of a linear probe with all labels."""
    regression = LogisticRegression(C=0.01, max_iter=300, tol=1e-3)
    classifier = make_pipeline(StandardScaler(), regression).fit(codes[0], y_train)
    return {"accuracy": classifier.score(codes[1], y_test)}


def propagate(codes, y_train, y_test, seed):
    """Return the accuracy of votes of the nearest training images, to which few labels spread.

    Zhou et al. 2004, Learning with Local and Global Consistency.
    """
    known = np.full(GRAPH_IMAGES, -1)
    labelled = choose_labelled(y_train[:GRAPH_IMAGES], LABELLED, seed)
    known[labelled] = y_train[labelled]
    spreading = LabelSpreading("knn", alpha=0.99, max_iter=100, **NEIGHBOURS)
    spreading.fit(codes[0][:GRAPH_IMAGES], known)
    return {"accuracy": spreading.score(codes[1], y_test)}


def gaussian_mixture(codes):
    """Return a mixture with as many components as classes, fitted to codes (n, dimensions)."""
    settings = {"reg_covar": 1e-3, "max_iter": 500, "n_init": 3, "random_state": 0}
    return GaussianMixture(10, **settings).fit(codes)


def matched_share(clusters, labels):
    """Return the share of images in the right cluster, with the best match to the classes."""
    table = confusion_matrix(labels, clusters)
    return float(table[linear_sum_assignment(-table)].sum() / len(labels))


def cluster(codes, _, y_test, seed):
    """Return the accuracy of clusters of test images, which UMAP embeds in five dimensions."""
    from umap import UMAP  # https://umap-learn.readthedocs.io

    reducer = UMAP(n_neighbors=20, min_dist=0, n_components=5, random_state=seed, n_jobs=1)
    embedding = reducer.fit_transform(codes[1])
    return {"accuracy": matched_share(gaussian_mixture(embedding).predict(embedding), y_test)}


TASKS = {  # name: function, number of seeds
    "linear probe, all labels": (probe, 1),
    "label propagation, 100 labels": (propagate, 10),
    "UMAP and Gaussian mixture, no labels": (cluster, 3),
}


def measure_codes(_):
    x_train, y_train, x_test, y_test = load_digits()
    for program, codes in all_codes(x_train, x_test).items():
        script = DENOISER if program == DENOISER else VAE
        near = first_components(*codes)  # for distances: as good, and far faster
        for task, (function, seeds) in TASKS.items():
            for seed in range(1 if SMOKE else seeds):
                key = {"part": "representations", "program": program, "case": task, "seed": seed}
                of_task = codes if function is probe else near
                measure = functools.partial(function, of_task, y_train, y_test, seed)
                results.once(script, measure, **key)


# ---- One class -----------------------------------------------------------------------------------


def blurred(images):
    """Return images (n, height, width, 1), blurred by a pixel."""
    return gaussian_filter(images, (0, 1, 1, 0))


def error_by_ink(images, restored):
    """Return the squared error of each blurred image (n,), divided by the sum of its pixels.

    The blur forgives strokes that are off by a pixel. The error grows with the ink of an image, so
    without the division a thin 1 is a good example of every digit.
    """
    errors = np.sum((blurred(images) - blurred(restored)) ** 2, axis=(1, 2, 3))
    return errors / np.maximum(images.sum(axis=(1, 2, 3)), 1)


def unit_length(images):
    """Return blurred images as rows, divided by the root of the sum of their squares."""
    rows = blurred(images).reshape(len(images), -1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def measure_one_class(_):
    """Train a VAE on one digit, and score all test images; compare with nearest neighbours."""
    x_train, y_train, x_test, y_test = load_digits()
    words = [*TEN_DIMENSIONS, "--epochs", "3", "--learning-rate", "0.001"]

    def auc_of_vae(digit, ordinary):
        path = WORK / f"digit-{digit}.npz"
        np.savez(path, x_train=np.uint8(np.rint(255 * ordinary)))
        encoder, decoder = load_vae(train(VAE, 0, ["--data", relative(path), *words])[0])
        z_mean, _ = encoder.predict(x_test, batch_size=500, verbose=0)
        restored = decoder.predict(z_mean, batch_size=500, verbose=0)
        return {"auc": float(roc_auc_score(y_test != digit, error_by_ink(x_test, restored)))}

    def auc_of_neighbours(digit, ordinary):
        search = NearestNeighbors(**NEIGHBOURS).fit(unit_length(ordinary))
        distances = search.kneighbors(unit_length(x_test))[0].mean(axis=1)
        return {"auc": float(roc_auc_score(y_test != digit, distances))}

    for digit in range(1 if SMOKE else 10):
        ordinary = x_train[y_train == digit]
        for program, function in ((VAE, auc_of_vae), ("nearest neighbours", auc_of_neighbours)):
            key = {"part": "one-class", "program": program, "data": f"digit {digit}"}
            results.once(VAE, functools.partial(function, digit, ordinary), **key)


# ---- Pretraining ---------------------------------------------------------------------------------

ENCODERS = {  # name: arguments of the training of the encoder
    "random weights": [],
    "clean images": ["--noise", "0.001"],  # an autoencoder without noise, except for a trace
    "Gaussian noise": [],
    "masking": ["--corruption", "masking"],
    "salt-and-pepper": ["--corruption", "salt-and-pepper"],
}
LABELS = (100, 300, 1000, 3000, 40_000)
RATES = (3e-4, 1e-3, 3e-3)
STEPS = 600  # of fine-tuning, or three passes
VALIDATION = 5000  # the last training digits, which no encoder has seen


def build_classifier(name, seed):
    """Return an encoder, or a new one of its kind, with a linear layer on its code."""
    encoder = load_model(train(DENOISER, 0, ENCODERS[name])[0] / "encoder.keras")
    keras.utils.set_random_seed(seed)
    if name == "random weights":
        encoder = keras.models.clone_model(encoder)
    image = keras.Input((28, 28, 1))
    code = keras.layers.ReLU()(encoder(image))  # as in the decoder's first block
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(code)))


def error_after(name, count, rate, seed, digits, judged):
    """Return the share of judged digits that a fine-tuned classifier gets wrong."""
    chosen = choose_labelled(digits[1], count // 10, seed)
    steps = max(STEPS, 3 * count // 64)
    model = build_classifier(name, seed)
    schedule = keras.optimizers.schedules.PolynomialDecay(rate, steps, end_learning_rate=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss=loss)
    seen = np.resize(chosen, max(len(chosen), 6400))  # a hundred steps or more in each epoch
    epochs = max(1, 64 * steps // len(seen))
    model.fit(digits[0][seen], digits[1][seen], batch_size=64, epochs=epochs, verbose=0)
    found = model.predict(judged[0], batch_size=500, verbose=0).argmax(axis=1)
    return float(np.mean(found != judged[1]))


def measure_pretraining(_):
    """Fine-tune encoders on some labelled digits; validation digits choose the learning rate."""
    images, labels, *test = load_digits()
    digits = (images[:-VALIDATION], labels[:-VALIDATION])
    validation = (images[-VALIDATION:], labels[-VALIDATION:])

    def measure(name, count, seed):
        key = {"part": "pretraining-rate", "program": DENOISER, "data": f"{count:,} labels"}

        def best_rate():
            tried = [error_after(name, count, each, 0, digits, validation) for each in RATES]
            return {"rate": RATES[int(np.argmin(tried))]}

        rate = results.once(DENOISER, best_rate, **key, case=name)["rate"]
        return {"error": error_after(name, count, rate, seed, digits, test)}

    for count in LABELS[:1] if SMOKE else LABELS:
        for name in ENCODERS:
            for seed in range(1 if SMOKE else 5):
                key = {"part": "pretraining", "program": DENOISER, "data": f"{count:,} labels"}
                call = functools.partial(measure, name, count, seed)
                results.once(DENOISER, call, **key, case=name, seed=seed)
