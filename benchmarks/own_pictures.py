"""Measures the VAE on pictures of one's own, from 300 to 50,000, compared with two VAEs of others.

    python benchmarks/run.py own     # each trains for at most five minutes

The pictures are drawings of a package of Debian, which apt-get downloads, and crops of six
photographs, all RGB of 64 x 64 pixels. Draws images/own_*.png and images/vae_own_pictures.png.
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

PACKAGE = "openclipart-png"  # in the public domain
SETS = {  # name: file, training images
    "300 drawings": ("drawings", 300),
    "1,000 drawings": ("drawings", 1000),
    "5,000 drawings": ("drawings", 5000),
    "50,000 crops": ("crops", 50_000),
}
COMPARED = "5,000 drawings"  # with the peers
PEERS = {"own-keras-vae": "128", "own-five-level-vae": "144"}  # variant: batch size, as published
LATENT_DIM, BATCH_SIZE = 16, 32
ALIKE = 0.93  # correlation of two pictures that are held together
HELD_OUT = 10  # one picture of so many is for the test, and one for validation
MOST_EPOCHS = 100  # of ours: 300 drawings gain nothing from more
BLACK = ("hubble_deep_field", "retina")  # photographs of little else
COLUMNS = 12  # of a picture
COMMON = ["--latent-dim", str(LATENT_DIM), "--batch-size", str(BATCH_SIZE)]

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


def drawings():
    """Return the different drawings of the package, (n, 64, 64, 3)."""
    folder, path = WORK / PACKAGE, WORK / f"{PACKAGE}.npz"
    if not folder.exists():
        subprocess.run(["apt-get", "download", PACKAGE], cwd=WORK, check=True)
        archive = next(WORK.glob(f"{PACKAGE}_*.deb"))
        subprocess.run(["dpkg-deb", "--extract", archive, folder], check=True)
    if not path.exists():
        words = ["--output", path, "--size", 64, "--skip-unreadable"]
        command("examples/prepare_data.py", folder / "usr", *words)
    return np.unique(np.load(path)["x_train"], axis=0)


def data_of(name):
    """Return the path of the .npz file of drawings, or of crops of photographs."""
    path = WORK / f"own-{name}.npz"
    if not path.exists() and name == "drawings":
        np.savez(path, **split(drawings()))
    elif not path.exists():  # parts of the photographs that do not overlap
        save_photographs(WORK / "own-photographs", without=BLACK)
        crops = ["--crop", 64, "--count", 62_000]
        command("examples/prepare_data.py", WORK / "own-photographs", "--output", path, *crops)
    return path


# ---- Trainings -----------------------------------------------------------------------------------


def steps_in_time():
    """Return how many steps of ours take the time that the others have."""

    def measure():
        seconds = []
        words = ["--data", relative(data_of("drawings")), *COMMON, "--limit", "300"]
        for epochs in ("5", "45"):
            folder, _ = train(VAE, 0, [*words, "--epochs", epochs])
            seconds.append(metrics_of(folder)["train_seconds"])
        steps = 40 * (300 // BATCH_SIZE)
        return {"steps": int(OWN_SECONDS * steps / max(0.01, seconds[1] - seconds[0]))}

    return results.once(VAE, measure, part="own-steps", program=VAE)["steps"]


def trained(program, name, seed):
    """Return the folder of a run of ours, or of a peer by the clock, on one of the SETS."""
    data, count = SETS[name]
    words = ["--data", relative(data_of(data)), "--limit", str(count)]
    if program in PEERS:
        words += ["--latent-dim", str(LATENT_DIM), "--batch-size", PEERS[program]]
        return train(VAE, seed, [*words, "--epochs", "100000"], program)[0]
    epochs = min(MOST_EPOCHS, max(1, steps_in_time() * BATCH_SIZE // count))
    return train(VAE, seed, [*words, *COMMON, "--epochs", str(epochs)])[0]


def validation_losses(folder):
    """Return the validation loss of each epoch of a run."""
    history = np.genfromtxt(folder / "history.csv", delimiter=",", names=True)
    return np.atleast_1d(history["val_loss"]).tolist()


def test_images(name):
    data, count = SETS[name]
    script, source = load(VAE), str(data_of(data))
    return np.float32(script.split_images(script.load_arrays(source), source, count)[2] / 255)


def psnr(encoder, decoder, images):
    """Return the mean PSNR in dB of images that are decoded from z_mean."""
    z_mean, _ = encoder.predict(images, batch_size=100, verbose=0)
    decoded = decoder.predict(z_mean, batch_size=100, verbose=0)
    return float(np.mean(-10 * np.log10(np.mean((images - decoded) ** 2, axis=(1, 2, 3)))))


def measure(program, name, seed):
    """Return the metrics of a run on the test images, and of its validation."""
    folder = trained(program, name, seed)
    losses = validation_losses(folder)
    found = {"best_validation": min(losses), "last_validation": losses[-1], "epochs": len(losses)}
    found["psnr"] = psnr(*load_vae(folder), test_images(name))
    return metrics_of(folder) | found


def draw(name, programs, path):
    """Draw test pictures, as each program decodes them, and samples of ours, of seed 0."""
    images = test_images(name)[:COLUMNS]
    rows, names = [images], ["test picture"]
    for program, title in programs.items():
        encoder, decoder = load_vae(trained(program, name, 0))
        rows.append(decoder(encoder(images)[0]))
        names.append(title)
    _, decoder = load_vae(trained(VAE, name, 0))
    z = np.random.default_rng(0).normal(size=(2, COLUMNS, LATENT_DIM))
    rows.extend(decoder(each) for each in z)
    title = f"{name}, at most {OWN_SECONDS // 60} minutes of training"
    load(VAE).plot_image_rows(path, title, np.stack(rows), [*names, "samples", "of ours"])


def measure_all(seed):
    cases = [(VAE, name) for name in SETS] + [(peer, COMPARED) for peer in PEERS]
    for program, name in cases:
        key = {"part": "own", "program": program, "case": name, "seed": seed}
        results.once(VAE, lambda p=program, n=name: measure(p, n, seed), **key)
    if seed > 0 or SMOKE:
        return
    for name in SETS:
        path = ROOT / f"images/own_{name.split()[0].replace(',', '')}.png"
        draw(name, {VAE: "decoded"}, path)
    losses = {peer: min(validation_losses(trained(peer, COMPARED, 0))) for peer in PEERS}
    best = min(losses, key=losses.get)
    draw(COMPARED, {VAE: "ours", best: "best other"}, ROOT / "images/vae_own_pictures.png")
