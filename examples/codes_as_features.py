# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4",
#     "scikit-learn>=1.6,<2", "scipy>=1.14,<2",
# ]
# ///
"""What the codes are good for: classifying digits with many labels, with few, and with none.

    python examples/codes_as_features.py

Opens the encoders that the two scripts saved, which were trained without labels. Compares their
codes of the digits with raw pixels, and with PCA of the same number of dimensions. The denoiser's
code (7, 7, 64) passes a ReLU, as in the decoder's first block, and is pooled to (3, 3, 64) by means
over 3x3 positions; the VAE's code is z_mean. Classifiers are fitted to training images and scored
on the test images; clusters are found in the test images.
Prints a table, writes it to codes_as_features.json in --model-dir, and draws vae_clusters.png, the
clusters of the latent plane.
"""

import json

import common

parser = common.Parser(__doc__)
models = ("denoiser/encoder.keras", "vae/encoder.keras", "vae/decoder.keras")
parser.add_model_dir("models", *models)
parser.add_images_dir()
parser.add_data()
# PCA needs more images than it has dimensions.
parser.add_integer("--limit", 1000, 60000, 55000, "the first N training images")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
with common.quiet_imports():
    import keras
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import adjusted_rand_score, confusion_matrix, normalized_mutual_info_score
    from sklearn.mixture import GaussianMixture
    from sklearn.neighbors import KNeighborsClassifier

CLASSES = 10
LABELLED = 10  # labelled images of each class, in the columns with few labels
DRAWS = 10  # random choices of these images
HEAD = """
| codes | dimensions | k-nearest neighbours, all labels | logistic regression, all labels \
| k-nearest neighbours, 100 labels | logistic regression, 100 labels \
| k-means: ARI, NMI, accuracy | Gaussian mixture: ARI, NMI, accuracy |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def pooled_encoder(encoder, shape):
    """Return a model from images (n, *shape) to the denoiser's codes, pooled and flat."""
    image = keras.Input(shape)  # the encoder itself takes images of any size
    code = keras.layers.ReLU()(encoder(image))
    pooled = keras.layers.AveragePooling2D(3, strides=2)(code)
    return keras.Model(image, keras.layers.Flatten()(pooled))


def representations(x_train, x_test, denoiser, encoder):
    """Yield (name, training codes, test codes): pixels, then each code and PCA of its size."""
    pixels_train, pixels_test = x_train.reshape(len(x_train), -1), x_test.reshape(len(x_test), -1)
    yield "raw pixels", pixels_train, pixels_test
    z_mean = keras.Model(encoder.input, encoder.output[0])
    for name, model in (("denoiser's code", denoiser), ("VAE's z_mean", z_mean)):
        train = model.predict(x_train, batch_size=500, verbose=0)
        yield name, train, model.predict(x_test, batch_size=500, verbose=0)
        pca = PCA(train.shape[1], random_state=0).fit(pixels_train)
        yield "PCA", pca.transform(pixels_train), pca.transform(pixels_test)


def accuracies(train, y_train, test, y_test):
    """Return {classifier: accuracy}; settings that are not given are scikit-learn's defaults."""
    neighbours = KNeighborsClassifier(n_neighbors=5).fit(train, y_train)
    regression = LogisticRegression(max_iter=300, tol=1e-3).fit(train, y_train)
    return {
        "nearest neighbours": neighbours.score(test, y_test),
        "logistic regression": regression.score(test, y_test),
    }


def accuracies_with_few(train, y_train, test, y_test):
    """Return {classifier: (mean, standard deviation)} of the accuracy with few labels."""
    scores = []
    for seed in range(DRAWS):
        draw = np.random.default_rng(seed)
        classes = [np.flatnonzero(y_train == label) for label in range(CLASSES)]
        labelled = np.concatenate([draw.choice(each, LABELLED, replace=False) for each in classes])
        scores.append(accuracies(train[labelled], y_train[labelled], test, y_test))
    of_each = {name: [score[name] for score in scores] for name in scores[0]}
    return {name: (np.mean(each), np.std(each, ddof=1)) for name, each in of_each.items()}


def gaussian_mixture(codes):
    """Return a mixture fitted to codes; above 10 dimensions its covariances are diagonal."""
    kind = "full" if codes.shape[1] <= 10 else "diag"
    settings = {"reg_covar": 1e-3, "max_iter": 500, "random_state": 0}
    return GaussianMixture(CLASSES, covariance_type=kind, **settings).fit(codes)


def cluster_scores(codes, labels):
    """Return {clustering: {score: value}}; the labels score the clusters, but do not form them."""
    k_means = KMeans(CLASSES, n_init=5, random_state=0).fit(codes)
    scores = {}
    for name, model in (("k-means", k_means), ("Gaussian mixture", gaussian_mixture(codes))):
        clusters = model.predict(codes)
        table = confusion_matrix(labels, clusters)
        matched = table[linear_sum_assignment(-table)].sum()
        ari = adjusted_rand_score(labels, clusters)
        nmi = normalized_mutual_info_score(labels, clusters)
        scores[name] = {"ARI": ari, "NMI": nmi, "accuracy": matched / len(labels)}
    return scores


def print_row(row):
    """Print a row of the table in Markdown, accuracies in percent."""
    cells = [row["codes"], str(row["dimensions"])]
    for accuracy in row["all labels"].values():
        cells.append(f"{100 * accuracy:.1f}")
    for mean, deviation in row["100 labels"].values():
        cells.append(f"{100 * mean:.1f} ± {100 * deviation:.1f}")
    for score in row["no labels"].values():
        accuracy = 100 * score["accuracy"]
        cells.append(f"{score['ARI']:.2f}, {score['NMI']:.2f}, {accuracy:.1f}")
    print(f"| {' | '.join(cells)} |", flush=True)


def draw_clusters(path, codes, labels, decoder):
    """Draw the plane, divided into the clusters of a Gaussian mixture, and each decoded mean.

    A cluster has the colour of its most frequent class, a point that of its own class.
    """
    mixture = gaussian_mixture(codes)
    majority = confusion_matrix(mixture.predict(codes), labels).argmax(axis=1)
    low, high = np.quantile(codes, (0.001, 0.999), axis=0)
    centre, reach = (low + high) / 2, (high - low).max() / 2 + 0.3
    (left, bottom), (right, top) = centre - reach, centre + reach  # a square
    x, y = np.linspace(left, right, 800), np.linspace(bottom, top, 800)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    regions = mixture.predict(points.astype(codes.dtype)).reshape(800, 800)
    figure = Figure(figsize=(8, 8), layout="constrained")
    title = "Ten clusters found without labels, coloured by their most frequent class;\n"
    title += "points have the colour of their own class; each cluster's mean is decoded"
    axes = figure.add_subplot(title=title, xlabel="z[0]", ylabel="z[1]")
    colours = matplotlib.colormaps["tab10"]
    extent = (left, right, bottom, top)
    axes.imshow(colours(majority)[regions], alpha=0.35, extent=extent, origin="lower")
    for cluster in range(CLASSES):
        axes.contour(x, y, regions == cluster, levels=[0.5], colors="black", linewidths=0.7)
    classes = {"c": labels[:5000], "cmap": colours, "vmin": -0.5, "vmax": 9.5}
    scatter = axes.scatter(*codes[:5000].T, s=3, linewidths=0, **classes)
    key = scatter.legend_elements(num=None)  # one entry for each class
    place = {"loc": "outside lower center", "handletextpad": 0, "columnspacing": 1}
    figure.legend(*key, title="class", ncols=CLASSES, **place)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    half = 0.07 * reach  # of the side of a decoded digit
    for z, digit in zip(mixture.means_, decoder.predict(mixture.means_, verbose=0), strict=True):
        inset = axes.inset_axes((*(z - half), 2 * half, 2 * half), transform=axes.transData)
        inset.imshow(digit, cmap="gray", vmin=0, vmax=1)
        inset.set(xticks=[], yticks=[])
    with common.new_file(path) as unfinished:
        figure.savefig(unfinished, dpi=150)


def main(options):
    encoder, decoder = common.load_plane(options.model_dir / "vae")
    denoiser = common.load_model(options.model_dir / "denoiser/encoder.keras")
    shape = encoder.input_shape[1:]
    x_train, y_train = common.read_images(options.data, "train", shape)
    x_test, y_test = common.read_images(options.data, "test", shape)
    x_train, y_train = x_train[: options.limit], y_train[: options.limit]
    common.need_digits(options.data, y_train, LABELLED)
    print(HEAD)
    rows = []
    for name, train, test in representations(
        x_train, x_test, pooled_encoder(denoiser, shape), encoder
    ):
        scale = train.std()  # one for all dimensions, which keeps their proportions
        train, test = train / scale, test / scale
        row = {"codes": name, "dimensions": train.shape[1]}
        row["all labels"] = accuracies(train, y_train, test, y_test)
        row["100 labels"] = accuracies_with_few(train, y_train, test, y_test)
        row["no labels"] = cluster_scores(test, y_test)
        rows.append(row)
        print_row(row)
    with common.new_file(options.model_dir / "codes_as_features.json") as unfinished:
        unfinished.write_text(json.dumps(rows, indent=2) + "\n")
    codes, _ = encoder.predict(x_test, batch_size=500, verbose=0)
    draw_clusters(options.images_dir / "vae_clusters.png", codes, y_test, decoder)


if __name__ == "__main__":
    main(options)
