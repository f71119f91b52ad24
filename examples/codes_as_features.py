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
over 3x3 positions; the VAE's code is z_mean.
Prints a table, writes it as JSON, and draws the clusters of the latent plane. Classifiers are
fitted to training images and scored on the test images; clusters are found in the test images.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("denoiser/encoder", "vae/encoder", "vae/decoder")


def parse_options():
    """Return the options of the command line; a wrong one or a missing model ends the script."""
    about, command, *_ = __doc__.split("\n\n")
    example = f"example: {command.strip()}"
    parser = argparse.ArgumentParser(description=about, epilog=example, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message}; see --help")
    add = parser.add_argument
    add("--model-dir", type=Path, default=Path("models"), metavar="DIR",
        help="folder with denoiser/ and vae/ (default: models)")  # fmt: skip
    add("--data", type=Path, default=ROOT / "data" / "mnist.npz", metavar="FILE",
        help="the digits (default: data/mnist.npz)")  # fmt: skip
    add("--limit", type=int, default=55000, metavar="N",
        help="the first N training images, 1,000 to 60,000 (default: 55,000)")  # fmt: skip
    add("--output", type=Path, default=Path("models/codes_as_features.json"), metavar="FILE",
        help="the table as JSON (default: models/codes_as_features.json)")  # fmt: skip
    add("--picture", type=Path, default=ROOT / "images" / "vae_clusters.png", metavar="FILE",
        help="the clusters (default: images/vae_clusters.png)")  # fmt: skip
    options = parser.parse_args()
    if not 1000 <= options.limit <= 60000:  # PCA needs more images than it has dimensions
        fail(f"--limit {options.limit:,}: accepted: 1,000 to 60,000")
    models = [options.model_dir / f"{name}.keras" for name in MODELS]
    for path in (options.data, *models):
        if not path.is_file():
            fail(f"{path} does not exist; train the models first, or give --model-dir and --data")
    return options


def fail(message):
    """End the script with one line about a user error."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    OPTIONS = parse_options()  # before the slow imports, so that --help and mistakes answer at once
os.environ["KERAS_BACKEND"] = "tensorflow"
try:
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
except ImportError as error:
    fail(f"{error}; pip install -r examples/requirements.txt")

CLASSES = 10
LABELLED = 10  # labelled images of each class, in the columns with few labels
DRAWS = 10  # random choices of these images


def load(path):
    """Return the model of a file; a damaged file ends the script."""
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be opened: {error}")


def codes_of(images, denoiser, vae):
    """Return {name: codes (n, dimensions)} of images (n, 28, 28) in [0, 1], by two encoders."""
    image = keras.Input((28, 28, 1))  # the encoder itself takes images of any size
    code = keras.layers.ReLU()(denoiser(image))
    pooled = keras.layers.AveragePooling2D(3, strides=2)(code)
    pooling = keras.Model(image, keras.layers.Flatten()(pooled))
    images = images[..., np.newaxis]
    return {
        "denoiser's code": pooling.predict(images, batch_size=500, verbose=0),
        "VAE's z_mean": vae.predict(images, batch_size=500, verbose=0)[0],
    }


def representations(x_train, x_test, encoders):
    """Yield (name, training codes, test codes): pixels, then each code and PCA of its size."""
    pixels = [images.reshape(len(images), -1) for images in (x_train, x_test)]
    yield "raw pixels", *pixels
    train, test = codes_of(x_train, *encoders), codes_of(x_test, *encoders)
    for name in train:
        yield name, train[name], test[name]
        pca = PCA(train[name].shape[1], random_state=0).fit(pixels[0])
        yield "PCA", *(pca.transform(each) for each in pixels)


def classifiers():
    """Return {name: classifier}; settings that are not given are scikit-learn's defaults."""
    return {
        "nearest neighbours": KNeighborsClassifier(n_neighbors=5),
        "logistic regression": LogisticRegression(max_iter=300, tol=1e-3),
    }


def accuracy_with_all(train, y_train, test, y_test):
    """Return {classifier: accuracy} with all training labels."""
    return {
        name: each.fit(train, y_train).score(test, y_test) for name, each in classifiers().items()
    }


def accuracy_with_few(train, y_train, test, y_test):
    """Return {classifier: (mean, standard deviation)} of the accuracy with few labels."""
    scores = {name: [] for name in classifiers()}
    for draw in range(DRAWS):
        random = np.random.default_rng(draw)
        labelled = np.concatenate(
            [
                random.choice(np.flatnonzero(y_train == y), LABELLED, replace=False)
                for y in range(CLASSES)
            ]
        )
        for name, each in classifiers().items():
            scores[name].append(each.fit(train[labelled], y_train[labelled]).score(test, y_test))
    return {name: (np.mean(each), np.std(each, ddof=1)) for name, each in scores.items()}


def clusterings(dimensions):
    """Return {name: clustering}; above 10 dimensions the Gaussians have diagonal covariances."""
    kind = "full" if dimensions <= 10 else "diag"
    return {
        "k-means": KMeans(CLASSES, n_init=5, random_state=0),
        "Gaussian mixture": GaussianMixture(
            CLASSES, covariance_type=kind, reg_covar=1e-3, max_iter=500, random_state=0
        ),
    }


def cluster_scores(codes, labels):
    """Return {clustering: {score: value}}; the labels score the clusters, but do not form them."""
    scores = {}
    for name, each in clusterings(codes.shape[1]).items():
        found = each.fit_predict(codes)
        table = confusion_matrix(labels, found)
        scores[name] = {
            "ARI": adjusted_rand_score(labels, found),
            "NMI": normalized_mutual_info_score(labels, found),
            "accuracy": table[linear_sum_assignment(-table)].sum() / len(labels),
        }
    return scores


def draw_clusters(path, codes, labels, decoder):
    """Draw the plane, divided into the clusters of a Gaussian mixture, and each decoded mean.

    A cluster has the colour of its most frequent class, a point that of its own class.
    """
    mixture = clusterings(2)["Gaussian mixture"].fit(codes)
    low, high = np.quantile(codes, (0.001, 0.999), axis=0)
    centre, reach = (low + high) / 2, (high - low).max() / 2 + 0.3
    low, high = centre - reach, centre + reach  # a square
    sides = [np.linspace(*ends, 800) for ends in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*sides), axis=-1)
    regions = mixture.predict(points.reshape(-1, 2).astype(codes.dtype)).reshape(points.shape[:2])
    majority = confusion_matrix(mixture.predict(codes), labels).argmax(axis=1)
    figure = Figure(figsize=(8, 8), layout="constrained")
    title = "Ten clusters found without labels, coloured by their most frequent class;\n"
    title += "points have the colour of their own class; each cluster's mean is decoded"
    axes = figure.add_subplot(title=title, xlabel="z[0]", ylabel="z[1]")
    extent = (low[0], high[0], low[1], high[1])
    colours = matplotlib.colormaps["tab10"]
    axes.imshow(colours(majority)[regions], alpha=0.35, extent=extent, origin="lower")
    for cluster in range(CLASSES):
        axes.contour(*sides, regions == cluster, levels=[0.5], colors="black", linewidths=0.7)
    classes = {"c": labels[:5000], "cmap": colours, "vmin": -0.5, "vmax": 9.5}
    scatter = axes.scatter(*codes[:5000].T, s=3, linewidths=0, **classes)
    key = scatter.legend_elements(num=None)  # one entry for each class
    places = {"loc": "outside lower center", "handletextpad": 0, "columnspacing": 1}
    figure.legend(*key, title="class", ncols=CLASSES, **places)
    axes.set(xlim=extent[:2], ylim=extent[2:])
    for z, digit in zip(mixture.means_, decoder.predict(mixture.means_, verbose=0), strict=True):
        half = 0.07 * reach
        inset = axes.inset_axes((*(z - half), 2 * half, 2 * half), transform=axes.transData)
        inset.imshow(digit[..., 0], cmap="gray", vmin=0, vmax=1)
        inset.set(xticks=[], yticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(options):
    started = time.perf_counter()
    with np.load(options.data) as arrays:
        x_train, x_test = (arrays[name].astype(np.float32) / 255 for name in ("x_train", "x_test"))
        y_train, y_test = arrays["y_train"], arrays["y_test"]
    x_train, y_train = x_train[: options.limit], y_train[: options.limit]
    denoiser, encoder, decoder = (load(options.model_dir / f"{name}.keras") for name in MODELS)
    if [*encoder.output_shape, decoder.input_shape] != 3 * [(None, 2)]:
        fail(f"{options.model_dir / 'vae'}: accepted: models with 2 latent dimensions")
    rows = []
    for name, train, test in representations(x_train, x_test, (denoiser, encoder)):
        if name == "VAE's z_mean":
            draw_clusters(options.picture, test, y_test, decoder)
        scale = train.std()  # one for all dimensions, which keeps their proportions
        train, test = train / scale, test / scale
        row = {"codes": name, "dimensions": train.shape[1]}
        row["all labels"] = accuracy_with_all(train, y_train, test, y_test)
        row[f"{LABELLED * CLASSES} labels"] = accuracy_with_few(train, y_train, test, y_test)
        row["no labels"] = cluster_scores(test, y_test)
        rows.append(row)
        print(f"{name}: done after {time.perf_counter() - started:.0f} s")
    print_table(rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"wrote {options.output}\nwrote {options.picture}")


def print_table(rows):
    """Print the table in Markdown, accuracies in percent."""
    few = f"{LABELLED * CLASSES} labels"
    head = ["codes", "dimensions"]
    head += ["k-nearest neighbours, all labels", "logistic regression, all labels"]
    head += [f"k-nearest neighbours, {few}", f"logistic regression, {few}"]
    head += ["k-means: ARI, NMI, accuracy", "Gaussian mixture: ARI, NMI, accuracy"]
    print(f"\n| {' | '.join(head)} |")
    print("| --- " * 8 + "|")
    for row in rows:
        whole, few, none = (row[key] for key in list(row)[2:])
        cells = [row["codes"], str(row["dimensions"])]
        cells += [f"{100 * value:.1f}" for value in whole.values()]
        cells += [f"{100 * mean:.1f} ± {100 * deviation:.1f}" for mean, deviation in few.values()]
        cells += [
            f"{each['ARI']:.2f}, {each['NMI']:.2f}, {100 * each['accuracy']:.1f}"
            for each in none.values()
        ]
        print(f"| {' | '.join(cells)} |")
    print()


if __name__ == "__main__":
    main(OPTIONS)
