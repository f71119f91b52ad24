"""Measures what the codes are good for: classifying digits with many labels, few, and none.

    python benchmarks/codes_as_features.py       # four and a half minutes, once a VAE is trained

Takes the encoders of default runs, and of a VAE with ten dimensions whose code is z_mean; those
that are not in work/ are trained first. The denoiser's code (7, 7, 64) passes a ReLU, as in the
decoder's first block. "Means" are those of 3x3 positions with a stride of 2, (3, 3, 64); "maxima"
those of 2x2 positions of the code, (6, 6, 64), and of 4x4 of the first layer, (6, 6, 32).
Classifiers are fitted to training images and scored on the test images; clusters are found in the
test images. Distances are those of the first 100 principal components. Prints a table for each
task: our codes, pixels, and published results. Writes codes_as_features.json to work/. Most
clusters need the package umap-learn.
"""

import argparse
import json
import warnings
from importlib.util import find_spec

import keras
import numpy as np
import scipy.sparse
from models import load_digits, trained
from run import DENOISER, VAE, WORK
from scipy.optimize import linear_sum_assignment
from scipy.sparse.linalg import LinearOperator, cg
from scipy.stats import mode
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, confusion_matrix
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CLASSES = 10
LABELLED = 10  # labelled images of each class, where labels are few
DRAWS = 10  # random choices of these images
LATENT_DIM = 10  # of the VAE whose code is used
PENALTY = 0.01  # C of the logistic regression with all labels
COMPONENTS = 100  # of codes of more numbers, for distances: as good, and far faster
GRAPH_IMAGES = 30_000  # training images in a graph
NEIGHBOURS = 10  # of each image: in a graph, and of those that vote on its class
DAMPING = 1e-3  # keeps the equations of a graph that is in pieces solvable
UMAP_SEEDS = (0, 1, 2)
MAXIMA = "denoiser's first layer and code, maxima"
MEANS = "denoiser's code, means"
PIXELS = "pixels"
OURS, BASELINE = "ours", "measured here"

# Second-hand: the figure was not looked up in the source itself.
KINGMA = "Kingma et al. 2014 (second-hand), table 1, https://arxiv.org/abs/1406.5298"
VINCENT = "Vincent et al. 2010 (second-hand), https://jmlr.org/papers/v11/vincent10a.html"
CALDER = "Calder et al. 2020 (second-hand), https://arxiv.org/abs/2006.11184"
N2D = "McConville et al. 2019 (MNIST-test), https://arxiv.org/abs/1908.05968"
DEC = "Xie et al. 2016 (second-hand), https://arxiv.org/abs/1511.06335"
PUBLISHED_ACCURACIES = {  # task: (method, source, accuracy in percent)
    "all labels": [
        ("linear SVM on pixels", VINCENT, "94.7"),
        ("linear SVM on the first layer of a stacked denoising autoencoder", VINCENT, "98.5"),
    ],
    "inductive": [
        ("contractive autoencoder", KINGMA, "86.5"),
        ("transductive SVM on the code of a VAE (M1+TSVM)", KINGMA, "88.2 ± 0.3"),
        ("VAEs that learn with the labels (M1+M2)", KINGMA, "96.7 ± 0.1"),
    ],
    "transductive": [
        ("Poisson learning on the code of a dense VAE, all 70,000 digits", CALDER, "95.9 ± 0.4")
    ],
    "clusters": [
        ("N2D: autoencoder, UMAP, Gaussian mixture", N2D, "94.8"),
        ("DEC: autoencoder and clusters trained together", DEC, "84.3"),
    ],
}
TITLES = {
    "all labels": "Linear probe on frozen codes, all labels",
    "inductive": "100 labels, without test images",
    "transductive": "100 labels, with the test images in the graph",
    "clusters": "Ten clusters of the test images, no labels",
}

# ---- Codes


def encode(model, images):
    """Return a list: the outputs of a model that has several, for images (n, h, w, channels)."""
    parts = [model(images[start : start + 500]) for start in range(0, len(images), 500)]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def denoiser_codes(encoder, shape):
    """Return a model from images (n, *shape) to maxima (n, 3456) and means (n, 576) of codes.

    The maxima are of the first layer and of the code, the means of the code alone. Maxima of
    neighbouring positions change little when a stroke moves by a pixel.
    """
    convolutions = [layer for layer in encoder.layers if isinstance(layer, keras.layers.Conv2D)]
    both = keras.Model(encoder.input, [convolutions[0].output, encoder.output])
    image = keras.Input(shape)  # the encoder itself takes images of any size
    first, code = both(image)  # (n, 14, 14, 32) and (n, 7, 7, 64)
    code = keras.layers.ReLU()(code)
    maxima = [
        keras.layers.MaxPooling2D(4, strides=2)(first),
        keras.layers.MaxPooling2D(2, strides=1)(code),
    ]
    both_maxima = keras.layers.Concatenate()(maxima)  # (n, 6, 6, 96)
    means = keras.layers.AveragePooling2D(3, strides=2)(code)  # (n, 3, 3, 64)
    flatten = keras.layers.Flatten()
    return keras.Model(image, [flatten(both_maxima), flatten(means)])


def all_codes(x_train, x_test):
    """Return {name: (training codes, test codes)}."""
    shape = x_train.shape[1:]
    encoder = keras.models.load_model(trained(DENOISER) / "encoder.keras")
    vae = keras.models.load_model(trained(VAE, "--latent-dim", str(LATENT_DIM)) / "encoder.keras")
    denoiser = denoiser_codes(encoder, shape)
    (maxima, means), (test_maxima, test_means) = encode(denoiser, x_train), encode(denoiser, x_test)
    z_mean, test_z_mean = encode(vae, x_train)[0], encode(vae, x_test)[0]
    codes = {
        MAXIMA: (maxima, test_maxima),
        MEANS: (means, test_means),
        f"code of a VAE, {z_mean.shape[1]} dimensions": (z_mean, test_z_mean),
        PIXELS: (x_train.reshape(len(x_train), -1), x_test.reshape(len(x_test), -1)),
    }
    # One scale for all dimensions keeps their proportions.
    return {
        name: (train / train.std(), test / train.std()) for name, (train, test) in codes.items()
    }


def components(train, test):
    """Return codes of many numbers as their first principal components, fitted to `train`."""
    if train.shape[1] <= COMPONENTS:
        return train, test
    pca = PCA(COMPONENTS, random_state=0).fit(train)
    return pca.transform(train), pca.transform(test)


# ---- Few labels


def choose_labelled(labels, seed):
    """Return the indices of the labelled images: some of each class, at random."""
    draw = np.random.default_rng(seed)
    classes = [np.flatnonzero(labels == label) for label in range(CLASSES)]
    return np.concatenate([draw.choice(each, LABELLED, replace=False) for each in classes])


def neighbour_graph(codes):
    """Return the weights (n, n) of a graph: each code is linked to its nearest neighbours.

    A weight is exp(-4 d^2 / D^2), with the distance d and D that of the last neighbour: Calder et
    al. 2020, section 4, https://arxiv.org/abs/2006.11184
    """
    distances, neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(codes).kneighbors()
    scale = np.maximum(distances[:, -1:], 1e-12)  # 0 where there are copies of an image
    weights = np.float32(np.exp(-4 * (distances / scale) ** 2))
    rows = np.repeat(np.arange(len(codes)), NEIGHBOURS)
    shape = (len(codes), len(codes))
    graph = scipy.sparse.csr_array((weights.ravel(), (rows, neighbours.ravel())), shape)
    return 0.5 * (graph + graph.T)  # / 2 would make 64 bits of 32, which take five times as long


def poisson_learning(graph, labelled, labels):
    """Return the class of every node of a graph (n, n), from the labels of a few nodes.

    For each class, labelled nodes are sources or sinks of a flow in the graph, and a node gets the
    class whose potential is highest: Calder et al. 2020, https://arxiv.org/abs/2006.11184
    """
    degrees = graph.sum(axis=1)
    laplacian = (scipy.sparse.diags_array((1 + DAMPING) * degrees) - graph).tocsr()
    one_hot = np.eye(CLASSES)[labels]
    flow = np.zeros((len(degrees), CLASSES), graph.dtype)
    flow[labelled] = one_hot - one_hot.mean(axis=0)

    # One system of equations for all classes takes less time than one for each.
    def flow_of(potentials):
        return (laplacian @ potentials.reshape(flow.shape)).ravel()

    def precondition(values):
        return (values.reshape(flow.shape) / degrees[:, np.newaxis]).ravel()

    shape = (flow.size, flow.size)
    system = LinearOperator(shape, flow_of, dtype=flow.dtype)
    preconditioner = LinearOperator(shape, precondition, dtype=flow.dtype)
    potentials, _ = cg(system, flow.ravel(), rtol=1e-3, M=preconditioner)
    return potentials.reshape(flow.shape).argmax(axis=1)


def accuracies_with_few(train, y_train, test, y_test):
    """Return the accuracies of all draws on test images, {"inductive": ..., "transductive": ...}.

    Inductive: a graph of training images spreads the labels to them, and the nearest of them vote
    on a test image. Transductive: the test images are in the graph.
    """
    graph = neighbour_graph(train)
    whole_graph = neighbour_graph(np.concatenate([train, test]))
    search = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(train)
    voters = search.kneighbors(test, return_distance=False)
    found = {"inductive": [], "transductive": []}
    for seed in range(DRAWS):
        labelled = choose_labelled(y_train, seed)
        spread = poisson_learning(graph, labelled, y_train[labelled])
        voted = mode(spread[voters], axis=1).mode
        found["inductive"].append(np.mean(voted == y_test))
        spread = poisson_learning(whole_graph, labelled, y_train[labelled])
        found["transductive"].append(np.mean(spread[len(train) :] == y_test))
    return found


def logistic_accuracies_with_few(train, y_train, test, y_test):
    """Return the accuracies of all draws of logistic regression on the labelled images alone."""
    accuracies = []
    for seed in range(DRAWS):
        labelled = choose_labelled(y_train, seed)
        classifier = LogisticRegression(max_iter=300, tol=1e-3)
        classifier.fit(train[labelled], y_train[labelled])
        accuracies.append(classifier.score(test, y_test))
    return accuracies


# ---- Clusters


def gaussian_mixture(codes):
    """Return a mixture with as many components as classes, fitted to codes (n, dimensions)."""
    settings = {"reg_covar": 1e-3, "max_iter": 500, "n_init": 3, "random_state": 0}
    return GaussianMixture(CLASSES, **settings).fit(codes)


def cluster_scores(clusters, labels):
    """Return the accuracy with the best match of clusters and classes, and the ARI."""
    table = confusion_matrix(labels, clusters)
    matched = table[linear_sum_assignment(-table)].sum()
    return matched / len(labels), adjusted_rand_score(labels, clusters)


def umap_embedding(codes, dimensions, seed):
    """Return codes in a few dimensions that keep their neighbours: https://umap-learn.readthedocs.io"""
    import umap

    count = 20
    distances, neighbours = NearestNeighbors(n_neighbors=count).fit(codes).kneighbors(codes)
    settings = {"n_neighbors": count, "min_dist": 0, "n_epochs": 100, "n_jobs": 1}
    # UMAP's own search for neighbours is compiled first, which takes longer than all the rest.
    settings["precomputed_knn"] = (neighbours, distances)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "precomputed_knn")  # other images cannot be added later
        reducer = umap.UMAP(n_components=dimensions, random_state=seed, **settings)
        return reducer.fit_transform(codes)


# ---- Tables


def result(method, origin, accuracies, **more):
    """Return a row of a table; the accuracies are one or several, from 0 to 1."""
    return {"method": method, "from": origin, "accuracies": np.ravel(accuracies).tolist(), **more}


def whose(name):
    """Return the origin of results of codes of that name."""
    return BASELINE if name == PIXELS else OURS


def rows_with_all_labels(codes, y_train, y_test):
    rows = []
    for name, (train, test) in codes.items():
        regression = LogisticRegression(C=PENALTY, max_iter=300, tol=1e-3)
        classifier = make_pipeline(StandardScaler(), regression).fit(train, y_train)
        accuracy = classifier.score(test, y_test)
        rows.append(result(f"linear probe: {name}", whose(name), accuracy))
    return rows


def rows_with_few_labels(codes, y_train, y_test):
    """Return the rows of two tables: inductive, and transductive."""
    inductive, transductive = [], []
    for name, (train, test) in codes.items():
        images = slice(0, GRAPH_IMAGES)
        found = accuracies_with_few(train[images], y_train[images], test, y_test)
        inductive.append(
            result(f"label propagation, votes: {name}", whose(name), found["inductive"])
        )
        transductive.append(result(f"Poisson learning: {name}", whose(name), found["transductive"]))
        alone = logistic_accuracies_with_few(train, y_train, test, y_test)
        inductive.append(result(f"linear probe: {name}", whose(name), alone))
    return inductive, transductive


def rows_of_clusters(codes, plane, labels):
    """Return the rows of clusters in test codes; those with UMAP only where it is installed."""
    k_means = KMeans(CLASSES, n_init=5, random_state=0).fit_predict(codes[PIXELS])
    accuracy, ari = cluster_scores(k_means, labels)
    rows = [result(f"k-means: {PIXELS}", BASELINE, accuracy, ari=ari)]
    accuracy, ari = cluster_scores(gaussian_mixture(plane).predict(plane), labels)
    rows.append(result("Gaussian mixture: 2-D latent space of the VAE", OURS, accuracy, ari=ari))
    if not find_spec("umap"):
        print("rows with UMAP are skipped: pip install umap-learn")
        return rows
    for name, test in codes.items():
        scores = []
        for seed in UMAP_SEEDS:
            embedding = umap_embedding(test, 5, seed)
            scores.append(cluster_scores(gaussian_mixture(embedding).predict(embedding), labels))
        accuracies, aris = zip(*scores, strict=True)
        method = f"UMAP and Gaussian mixture: {name}"
        rows.append(result(method, whose(name), accuracies, ari=np.mean(aris)))
    return rows


def percent(accuracies):
    """Return a cell: the mean in percent, and the standard deviation of several."""
    mean = f"{100 * np.mean(accuracies):.1f}"
    return mean if len(accuracies) == 1 else f"{mean} ± {100 * np.std(accuracies, ddof=1):.1f}"


def print_table(task, rows):
    """Print a table in Markdown: ours, those measured alongside, and published ones."""
    has_ari = task == "clusters"
    uses_test = "yes, without labels" if task in ("transductive", "clusters") else "no"
    print(f"\n{TITLES[task]}\n")
    print("| method | from | fitted to test images | accuracy, % |" + " ARI |" * has_ari)
    print("| --- | --- | --- | --- |" + " --- |" * has_ari)
    for row in sorted(rows, key=lambda row: row["from"] != OURS):
        cells = [row["method"], row["from"], uses_test, percent(row["accuracies"])]
        if has_ari:
            cells.append(f"{row['ari']:.2f}")
        print(f"| {' | '.join(cells)} |", flush=True)
    for method, source, accuracy in PUBLISHED_ACCURACIES[task]:
        cells = [method, source, uses_test, accuracy] + [""] * has_ari
        print(f"| {' | '.join(cells)} |", flush=True)


def main(options):
    x_train, y_train, x_test, y_test = load_digits()
    x_train, y_train = x_train[: options.limit], y_train[: options.limit]
    codes = all_codes(x_train, x_test)
    encoder = keras.models.load_model(trained(VAE) / "encoder.keras")
    plane = encode(encoder, x_test)[0]

    linear = {name: both for name, both in codes.items() if name != MEANS}  # the maxima are better
    tables = {"all labels": rows_with_all_labels(linear, y_train, y_test)}
    print_table("all labels", tables["all labels"])
    del codes[MAXIMA], linear  # so many numbers help a linear classifier, but not a distance
    codes = {name: components(*both) for name, both in codes.items()}
    few = rows_with_few_labels(codes, y_train, y_test)
    for task, rows in zip(("inductive", "transductive"), few, strict=True):
        tables[task] = rows
        print_table(task, rows)
    test_codes = {name: test for name, (_, test) in codes.items()}
    tables["clusters"] = rows_of_clusters(test_codes, plane, y_test)
    print_table("clusters", tables["clusters"])
    (WORK / "codes_as_features.json").write_text(json.dumps(tables, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=60000, help="the first N training images")
    main(parser.parse_args())
