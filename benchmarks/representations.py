"""Measures what the codes are good for: classifying digits with many labels, few, and none.

    python benchmarks/run.py representations

Takes the encoders of default runs, and of a VAE with ten dimensions whose code is z_mean. The
denoiser's code is averaged over 3 x 3 positions, to (3, 3, 64). Classifiers are fitted to training
images; clusters are those of the test images, and need the package umap-learn.
"""

import functools

import keras
import numpy as np
import results
from results import DENOISER, VAE
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, confusion_matrix
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading
from training import load_digits, load_model, train

CLASSES = 10
LABELLED = 10  # images of each class, where labels are few
PENALTY = 0.01  # C of the logistic regression with all labels
COMPONENTS = 100  # of codes of more numbers, for distances: as good, and far faster
GRAPH_IMAGES = 20_000  # training images among which labels are propagated
NEIGHBOURS = 10  # of each image in that graph
ALPHA = 0.99  # share of its neighbours in the class of an image
TEN_DIMENSIONS = ["--latent-dim", "10"]


def denoiser_codes(encoder):
    """Return a model from images (n, 28, 28, 1) to means of the code (n, 576)."""
    image = keras.Input((28, 28, 1))  # the encoder itself takes images of any size
    code = keras.layers.ReLU()(encoder(image))  # (n, 7, 7, 64), as the decoder's first block
    means = keras.layers.AveragePooling2D(3, strides=2)(code)  # (n, 3, 3, 64)
    return keras.Model(image, [keras.layers.Flatten()(means)])


def all_codes(*images):
    """Return {program: codes of training and of test images}."""
    denoiser = load_model(train(DENOISER)[0] / "encoder.keras")
    vae = load_model(train(VAE, 0, TEN_DIMENSIONS)[0] / "encoder.keras")
    found = {"pixels": [each.reshape(len(each), -1) for each in images]}
    for program, model in ((DENOISER, denoiser_codes(denoiser)), (VAE, vae)):
        outputs = [model.predict(each, batch_size=500, verbose=0) for each in images]
        found[program] = [first for first, *_ in outputs]  # z_mean of the VAE
    for program, (train_codes, test_codes) in found.items():
        scale = train_codes.std()  # one for all dimensions, which keeps their proportions
        found[program] = (train_codes / scale, test_codes / scale)
    return found


def first_components(train_codes, test_codes):
    """Return codes of many numbers as their first principal components."""
    if train_codes.shape[1] <= COMPONENTS:
        return train_codes, test_codes
    pca = PCA(COMPONENTS, random_state=0).fit(train_codes)
    return pca.transform(train_codes), pca.transform(test_codes)


def choose_labelled(labels, seed):
    """Return the indices of the labelled images: some of each class, at random."""
    draw = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in range(CLASSES)]
    return np.concatenate([draw.choice(each, LABELLED, replace=False) for each in classes])


def probe_all(codes, y_train, y_test, _):
    """Return the accuracy of a linear probe with all labels."""
    regression = LogisticRegression(C=PENALTY, max_iter=300, tol=1e-3)
    probe = make_pipeline(StandardScaler(), regression).fit(codes[0], y_train)
    return {"accuracy": probe.score(codes[1], y_test)}


def probe_few(codes, y_train, y_test, seed):
    """Return the accuracy of a linear probe with few labels."""
    labelled = choose_labelled(y_train, seed)
    probe = LogisticRegression(max_iter=300, tol=1e-3)
    probe.fit(codes[0][labelled], y_train[labelled])
    return {"accuracy": probe.score(codes[1], y_test)}


def propagate(codes, y_train, y_test, seed):
    """Return the accuracy of votes of the nearest training images, to which few labels spread.

    Zhou et al. 2004, Learning with Local and Global Consistency.
    """
    train_codes, test_codes = first_components(*codes)
    known = np.full(len(y_train), -1)
    labelled = choose_labelled(y_train[:GRAPH_IMAGES], seed)
    known[labelled] = y_train[labelled]
    spreading = LabelSpreading(kernel="knn", n_neighbors=NEIGHBOURS, alpha=ALPHA, max_iter=100)
    spreading.fit(train_codes[:GRAPH_IMAGES], known[:GRAPH_IMAGES])
    return {"accuracy": spreading.score(test_codes, y_test)}


def gaussian_mixture(codes):
    """Return a mixture with as many components as classes, fitted to codes (n, dimensions)."""
    settings = {"reg_covar": 1e-3, "max_iter": 500, "n_init": 3, "random_state": 0}
    return GaussianMixture(CLASSES, **settings).fit(codes)


def cluster_scores(clusters, labels):
    """Return the accuracy with the best match of clusters and classes, and the ARI."""
    table = confusion_matrix(labels, clusters)
    matched = table[linear_sum_assignment(-table)].sum()
    ari = adjusted_rand_score(labels, clusters)
    return {"accuracy": float(matched / len(labels)), "ari": float(ari)}


def cluster(codes, _, y_test, seed):
    """Return the scores of clusters of test images, whose codes UMAP embeds in five dimensions."""
    from umap import UMAP

    _, test_codes = first_components(*codes)
    reducer = UMAP(n_neighbors=20, min_dist=0, n_components=5, random_state=seed, n_jobs=1)
    embedding = reducer.fit_transform(test_codes)
    return cluster_scores(gaussian_mixture(embedding).predict(embedding), y_test)


TASKS = {  # name: function, number of seeds
    "linear probe, all labels": (probe_all, 1),
    "linear probe, 100 labels": (probe_few, 10),
    "label propagation, 100 labels": (propagate, 10),
    "UMAP and Gaussian mixture, no labels": (cluster, 3),
}


def measure_all(_):
    x_train, y_train, x_test, y_test = load_digits()
    for program, codes in all_codes(x_train, x_test).items():
        script = DENOISER if program == DENOISER else VAE
        for task, (function, seeds) in TASKS.items():
            for seed in range(seeds):
                key = {"part": "representations", "program": program, "case": task, "seed": seed}
                arguments = (codes, y_train, y_test, seed)
                results.once(script, functools.partial(function, *arguments), **key)
