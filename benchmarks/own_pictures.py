"""Measures the VAE on RGB pictures of three kinds, compared with two VAEs of others.

    python benchmarks/run.py own     # each trains for five minutes on each set

The sets are the drawings of two packages of Debian, which apt-get downloads, and crops of six
photographs, all of 64 x 64 pixels. Draws images/vae_own_pictures.png.
"""

import subprocess

import numpy as np
import results
from photograph import save_photographs
from PIL import Image
from results import ROOT, VAE
from scipy.sparse.csgraph import connected_components
from training import SMOKE, WORK, command, load, load_vae, metrics_of, relative, train
from variants import OWN_SECONDS

DRAWINGS = {  # package of Debian: where its pictures are
    "oxygen-icon-theme": "usr/share/icons/oxygen/base/64x64/*/*.png",
    "gnome-icon-theme": "usr/share/icons/gnome/256x256/*/*.png",
}
PEERS = {"own-keras-vae": "128", "own-five-level-vae": "144"}  # variant: batch size, as published
LATENT_DIM = 16
ALIKE = 0.93  # correlation of two pictures that are held together
HELD_OUT = 10  # one picture of so many is for the test, and one for validation
BLACK = ("hubble_deep_field", "retina")  # photographs of little else
COLUMNS = 5  # of each set in the picture

# ---- Pictures ------------------------------------------------------------------------------------


def near_copies(images):
    """Return a number for each image, the same for those that are nearly alike in gray."""
    small = [Image.fromarray(image).convert("L").resize((16, 16)) for image in images]
    pixels = np.stack([np.asarray(each, np.float32).ravel() for each in small])
    pixels -= pixels.mean(axis=1, keepdims=True)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)
    _, numbers = connected_components(pixels @ pixels.T > ALIKE)
    return numbers


def split(images):
    """Return {name: images} for training, validation and test, near copies in one part."""
    groups = near_copies(images)
    size = len(images) // HELD_OUT
    parts = {"x_test": [], "x_val": [], "x_train": []}
    for number in np.random.default_rng(0).permutation(groups.max() + 1):
        members = np.flatnonzero(groups == number)
        fits = [name for name in ("x_test", "x_val") if len(parts[name]) + len(members) <= size]
        parts[fits[0] if fits else "x_train"].extend(members)
    return {name: images[members] for name, members in parts.items()}


def drawings(package):
    """Return the different drawings of a package, (n, 64, 64, 3)."""
    folder, chosen = WORK / package, WORK / f"{package}-pictures"
    if not folder.exists():
        subprocess.run(["apt-get", "download", package], cwd=WORK, check=True)
        archive = next(WORK.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "--extract", archive, folder], check=True)
    chosen.mkdir(exist_ok=True)
    for path in folder.glob(DRAWINGS[package]):
        picture = Image.open(path)
        if picture.width == picture.height:  # others are strips of several, for animations
            picture.save(chosen / f"{path.parent.name}-{path.name}")
    places = [chosen, "--output", WORK / "drawings.npz", "--force"]
    command("examples/prepare_data.py", *places, "--size", 64)
    return np.unique(np.load(WORK / "drawings.npz")["x_train"], axis=0)  # some are links to others


def data_of(name):
    """Return the path of the .npz file of a set."""
    path = WORK / f"{name}.npz"
    if not path.exists() and name in DRAWINGS:
        np.savez(path, **split(drawings(name)))
    elif not path.exists():  # parts of the photographs that do not overlap
        save_photographs(WORK / name, without=BLACK)
        crops = ["--crop", 64, "--count", 5000]
        command("examples/prepare_data.py", WORK / name, "--output", path, *crops)
    return relative(path)


# ---- Trainings -----------------------------------------------------------------------------------


def epochs_in_time(data, words):
    """Return how many epochs of ours take the time that the others have."""

    def measure():
        seconds = []
        for epochs in ("3", "13"):
            folder, _ = train(VAE, 0, [*words, "--epochs", epochs])
            seconds.append(metrics_of(folder)["train_seconds"])
        return {"epochs": max(1, int(10 * OWN_SECONDS / max(0.01, seconds[1] - seconds[0])))}

    return results.once(VAE, measure, part="own-epochs", program=VAE, data=data)["epochs"]


def trained(program, data, seed):
    """Return the folder of a run of ours, or of a peer by the clock, and its cost."""
    words = ["--data", data, "--latent-dim", str(LATENT_DIM), "--batch-size"]
    if program in PEERS:
        return train(VAE, seed, [*words, PEERS[program], "--epochs", "100000"], program)
    words.append("32")
    return train(VAE, seed, [*words, "--epochs", str(epochs_in_time(data, words))])


def validation_losses(folder):
    """Return the validation loss of each epoch of a run."""
    history = np.genfromtxt(folder / "history.csv", delimiter=",", names=True)
    return np.atleast_1d(history["val_loss"]).tolist()


def test_images(data):
    script = load(VAE)
    return np.float32(script.split_images(script.load_arrays(str(ROOT / data)), data)[2] / 255)


def psnr(encoder, decoder, images):
    """Return the mean PSNR in dB of images that are decoded from z_mean."""
    z_mean, _ = encoder.predict(images, batch_size=100, verbose=0)
    decoded = decoder.predict(z_mean, batch_size=100, verbose=0)
    return float(np.mean(-10 * np.log10(np.mean((images - decoded) ** 2, axis=(1, 2, 3)))))


def measure(program, data, seed):
    """Return the metrics of a run on the test images, and of its validation."""
    folder, _ = trained(program, data, seed)
    losses = validation_losses(folder)
    found = {"best_validation": min(losses), "last_validation": losses[-1], "epochs": len(losses)}
    found["psnr"] = psnr(*load_vae(folder), test_images(data))
    return metrics_of(folder) | found


def draw(names):
    """Draw test pictures of each set, decoded by ours and by the better peer, and samples."""
    z = np.random.default_rng(0).normal(size=(COLUMNS, LATENT_DIM))
    columns = []
    for data in names:
        losses = {peer: min(validation_losses(trained(peer, data, 0)[0])) for peer in PEERS}
        peer = min(losses, key=losses.get)
        images = test_images(data)[:COLUMNS]
        rows = [images]
        for program in (VAE, peer):
            encoder, decoder = load_vae(trained(program, data, 0)[0])
            rows.append(decoder(encoder(images)[0]))
        rows.append(load_vae(trained(VAE, data, 0)[0])[1](z))
        columns.append(np.stack(rows))
    title = "Test pictures, decoded by each model after five minutes; samples of ours"
    names = ["test picture", "ours", "best other VAE", "our samples"]
    path = ROOT / "images/vae_own_pictures.png"
    load(VAE).plot_image_rows(path, title, np.concatenate(columns, axis=1), names)


def measure_all(seed):
    names = [data_of(name) for name in (*DRAWINGS, "photographs")]
    for data in names:
        for program in (VAE, *PEERS):
            key = {"part": "own", "program": program, "data": data, "seed": seed}
            results.once(VAE, lambda p=program, d=data: measure(p, d, seed), **key)
    if seed == 0 and not SMOKE:
        draw(names)
