# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["tensorflow==2.21.*", "keras==3.15.*", "numpy>=2,<3", "matplotlib>=3.10,<4"]
# ///
"""Test images and their reconstructions by VAEs of several latent dimensions, in one picture.

    python examples/compare_dimensions.py dims/2 dims/5 dims/10 dims/32

Takes the folders of models that VariationalAutoEncoder_tf2.py saved, and draws
vae_dimensions.png: a row of test images, then a row for each model.
"""

from pathlib import Path

import common

parser = common.Parser(__doc__)
parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folder of a VAE")
parser.add_data()
parser.add_images_dir("images")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    for vae in options.folders:
        common.need_models(vae, ("encoder.keras", "decoder.keras"))
with common.quiet_imports():
    from matplotlib.figure import Figure

COLUMNS = 20


def main(options):
    rows = []
    names = ["image"]
    for folder in options.folders:
        encoder = common.load_model(folder / "encoder.keras")
        decoder = common.load_model(folder / "decoder.keras")
        images, _ = common.read_images_to_show(options.data, encoder.input_shape[1:])
        images = images[:COLUMNS]
        z_mean, _ = encoder(images)
        rows.append(decoder(z_mean).numpy())
        names.append(f"{z_mean.shape[1]} dimensions")
    rows.insert(0, images)
    figure = Figure(figsize=(0.5 * len(images) + 1, 0.5 * len(rows) + 0.4), layout="constrained")
    axes = figure.add_subplot(title="Reconstructions by latent dimension", frame_on=False)
    common.draw_image_rows(axes, rows, names)
    with common.new_file(options.images_dir / "vae_dimensions.png") as unfinished:
        figure.savefig(unfinished, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main(options)
