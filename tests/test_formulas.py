"""Every formula against the same written out in NumPy."""

import math

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.quick
RANDOM = np.random.default_rng(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_bernoulli_likelihood(vae):
    images = RANDOM.random((5, 28, 28, 1))
    logits = RANDOM.normal(scale=4, size=images.shape)
    p = sigmoid(logits)
    expected = -(images * np.log(p) + (1 - images) * np.log(1 - p)).sum(axis=(1, 2, 3))
    found = vae.bernoulli_negative_log_likelihood(images, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    certain = np.ones((1, 8, 8, 1), np.float32), np.full((1, 8, 8, 1), -200, np.float32)
    np.testing.assert_allclose(vae.bernoulli_negative_log_likelihood(*certain), [64 * 200])


def test_gaussian_kl(vae):
    z_mean, z_log_sigma = RANDOM.normal(size=(2, 7, 3))
    sigma = np.exp(z_log_sigma)
    expected = np.log(1 / sigma) + (sigma**2 + z_mean**2) / 2 - 0.5
    np.testing.assert_allclose(vae.kl_to_standard_normal(z_mean, z_log_sigma), expected)


def test_image_metrics(denoiser):
    clean = RANDOM.random((4, 28, 28, 1)).astype(np.float32)
    images = RANDOM.uniform(0.1, 0.9, clean.shape).astype(np.float32)
    mse = np.array([((a - b) ** 2).mean() for a, b in zip(clean, images, strict=True)])
    bce = -(clean * np.log(images) + (1 - clean) * np.log(1 - images)).mean(axis=(1, 2, 3))
    found = denoiser.image_metrics(clean, images)
    np.testing.assert_allclose(found["mse"], mse, rtol=1e-5)
    np.testing.assert_allclose(found["psnr"], 10 * np.log10(1 / mse), rtol=1e-5)
    np.testing.assert_allclose(found["bce"], bce, rtol=1e-5)
    logits = np.log(images / (1 - images))
    np.testing.assert_allclose(denoiser.psnr(clean, logits), found["psnr"], rtol=1e-4)


def test_mosaics(denoiser):
    """Of five batches one becomes mosaics: four images each, shifted, no pixel lost."""
    images = denoiser.tf.tile(np.arange(9.0).reshape(9, 1, 1, 1), (1, 8, 12, 1))
    images = denoiser.tf.cast(images, "float32")
    made = [denoiser.mosaics(images, (0, seed)).numpy() for seed in range(600)]
    mosaics = np.array([batch for batch in made if batch.shape != images.shape])
    assert 0.15 < len(mosaics) / len(made) < 0.25 and mosaics.shape[1:] == (2, 16, 24, 1)
    for first, second in mosaics:
        values, counts = np.unique(first, return_counts=True)
        assert list(values) == [0, 2, 4, 6] and set(counts) == {8 * 12}
        assert list(np.unique(second)) == [1, 3, 5, 7]
    firsts = {batch[0].tobytes() for batch in mosaics}
    assert len(firsts) > len(mosaics) / 2  # of 96 shifts
    assert all(len(denoiser.mosaics(images[:3], (0, seed))) == 3 for seed in range(50))


def test_shuffle_channels(denoiser):
    """All six orders of the channels, each for a whole batch; grey images and pairs stay."""
    images = np.float32(np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3))
    orders = set()
    for seed in range(60):
        made = denoiser.shuffle_channels(images, (0, seed)).numpy()
        order = made[0, 0, 0].argsort().argsort()
        assert np.array_equal(made, images[..., order])
        orders.add(tuple(order))
    assert len(orders) == 6
    grey, pair = images[..., :1], np.tile(images, 2)
    for other in (grey, pair):
        assert denoiser.shuffle_channels(other, (0, 0)) is other


@pytest.mark.parametrize(("channels", "filters", "expected"), [(1, 64, 0.693), (3, 128, 0.125)])
def test_colour_has_its_own_loss_and_more_filters(denoiser, channels, filters, expected):
    """Where p is 0.5: log 2, and the mean of 0.5^2 for black and 0 for grey."""
    clean = np.full((64, 8, 8, channels), 128, np.uint8)
    encoder, model = denoiser.build_denoiser(clean, rate=0.1)
    assert encoder.output.shape[-1] == filters
    pixels = np.float32([0, 0.5]).reshape(2, 1, 1, 1) * np.ones((2, 8, 8, channels), np.float32)
    loss = model.compute_loss(y=pixels, y_pred=np.zeros_like(pixels))
    assert float(loss) == pytest.approx(expected, abs=1e-3)


def test_learning_rates(denoiser, vae):
    """Both end at zero; the denoiser's falls linearly from its peak, the VAE's rises first."""
    denoiser_rate = denoiser.learning_rate(0.01, steps=100)
    found = [float(denoiser_rate(step)) for step in (0, 25, 50, 100)]
    assert np.allclose(found, [0.01, 0.0075, 0.005, 0])
    vae_rate = vae.learning_rate(0.01, steps=100)
    found = [float(vae_rate(step)) for step in (0, 5, 10, 55, 100)]
    assert np.allclose(found, [0.0004, 0.0052, 0.01, 0.005, 0], atol=1e-6)


def test_muon_makes_the_update_of_a_kernel_orthogonal(denoiser):
    """All singular values of the update near 0.2 sqrt(larger side), for a gradient of rank 16."""
    gradient = np.float32(RANDOM.normal(size=(3, 3, 8, 16)) * np.arange(1, 17))
    kernel = keras.Variable(np.zeros((3, 3, 8, 16), np.float32))
    bias = keras.Variable(np.zeros(16, np.float32))
    optimizer = denoiser.ConvMuon(1.0)
    optimizer.build([kernel, bias])
    optimizer.apply([gradient, np.full(16, 3.0, np.float32)])
    values = np.linalg.svd(np.reshape(kernel, (72, 16)), compute_uv=False) / (0.2 * 72**0.5)
    assert values.min() > 0.6 and values.max() < 1.3
    np.testing.assert_allclose(bias, -1, rtol=1e-4)  # as Adam's first step


def test_updates_are_those_of_keras(vae):
    """AdamW by TensorFlow's kernel, up to rounding."""
    keras = vae.keras

    class Plain(vae.ConvMuon):
        _adamw_update_step = keras.optimizers.Muon._adamw_update_step

    ends = []
    for optimizer_class in (vae.ConvMuon, Plain):
        draw = np.random.default_rng(0)
        shapes = ((50, 70), (70,), (3, 3, 8, 16))
        variables = [keras.Variable(np.float32(draw.normal(size=shape))) for shape in shapes]
        rate = vae.learning_rate(0.01, 20)
        decay = {"weight_decay": 0.1, "adam_weight_decay": 0.5}
        optimizer = optimizer_class(rate, adam_beta_2=0.99, **decay)
        optimizer.build(variables)
        for _ in range(20):
            optimizer.apply([np.float32(draw.normal(size=shape)) for shape in shapes])
        ends.append([variable.numpy() for variable in variables])
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_shifted_images(vae, channels):
    """Each batch is a window of its images with mirrored edges, within an eighth of the sides."""
    images = np.float32(np.random.default_rng(0).random((5, 16, 24, channels)))
    padded = np.pad(images, [(0, 0), (2, 2), (3, 3), (0, 0)], mode="symmetric")
    windows = {
        padded[:, top : top + 16, left : left + 24].tobytes(): (top, left)
        for top in range(5)
        for left in range(7)
    }
    found = {windows[np.asarray(vae.shift(images, (0, seed))).tobytes()] for seed in range(200)}
    assert {top for top, _ in found} == set(range(5))
    assert {left for _, left in found} == set(range(7))
    batch = vae.vae_batch(images, (1, 2), 4, is_shifted=True)
    assert batch[0].numpy().tobytes() in windows
    np.testing.assert_array_equal(batch[0], batch[1])
    np.testing.assert_array_equal(vae.vae_batch(images, (1, 2), 4)[0], images)


def test_muon_leaves_dense_and_excluded_layers_to_adam(vae):
    encoder, decoder = vae.build_encoder((28, 28, 1), 2), vae.build_decoder((28, 28, 1), 2)
    optimizer = vae.vae_optimizer(1e-3)
    networks = [encoder, decoder]
    variables = [variable for network in networks for variable in network.trainable_variables]
    by_muon = {v.path for v in variables if not optimizer._should_use_adamw(v)}
    assert by_muon == {"conv1/kernel", "conv2/kernel"}


def test_weight_decay(vae):
    """Where the gradient is zero, a step multiplies by 1 - rate * decay, but not Muon's kernels."""
    encoder = vae.build_encoder((28, 28, 1), latent_dim=3)
    optimizer = vae.vae_optimizer(0.1)
    variables = encoder.trainable_variables
    before = [variable.numpy() for variable in variables]
    optimizer.build(variables)
    optimizer.apply([np.zeros(variable.shape, np.float32) for variable in variables], variables)
    for variable, old in zip(variables, before, strict=True):
        is_muons = variable.path in ("conv1/kernel", "conv2/kernel", "narrow/kernel")
        kept = 1 if is_muons else 1 - 0.1 * 0.05
        np.testing.assert_allclose(variable, kept * old, rtol=1e-5)


def test_ssim_without_variance_is_the_comparison_of_means(denoiser):
    """For flat images of a and b, SSIM is (2ab + c) / (a^2 + b^2 + c) with c = 0.01^2."""
    a, b, c = 0.3, 0.6, 0.01**2
    flat = [np.full((1, 28, 28, 1), value, np.float32) for value in (a, b)]
    found = denoiser.image_metrics(*flat)["ssim"]
    np.testing.assert_allclose(found, [(2 * a * b + c) / (a**2 + b**2 + c)], rtol=1e-4)


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_noise_is_gaussian_and_clipped(denoiser, noise):
    clean = np.full((400, 28, 28, 1), 0.5, np.float32)
    noisy = denoiser.add_noise(clean, noise, (1, 2))
    inside = np.abs(np.asarray(noisy) - 0.5) < 0.4999
    expected = math.erf(0.5 / noise / math.sqrt(2))  # the share that is not clipped
    assert inside.mean() == pytest.approx(expected, abs=0.004)
    assert np.abs(noisy - clean).max() <= 0.5
    assert np.mean(noisy) == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_masked_pixels_are_black_in_all_channels(denoiser, share):
    clean = np.random.default_rng(0).uniform(0.2, 0.8, (50, 40, 40, 3)).astype(np.float32)
    masked = np.asarray(denoiser.mask_pixels(clean, share, (1, 2)))
    is_masked = (masked == 0).any(axis=-1)
    assert is_masked.mean() == pytest.approx(share, abs=0.01)
    np.testing.assert_array_equal(masked, clean * ~is_masked[..., np.newaxis])


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_salt_is_as_frequent_as_pepper(denoiser, share):
    clean = np.random.default_rng(0).uniform(0.2, 0.8, (50, 40, 40, 3)).astype(np.float32)
    noisy = np.asarray(denoiser.add_salt_and_pepper(clean, share, (1, 2)))
    for value in (0, 1):
        is_changed = noisy == value
        assert is_changed.mean() == pytest.approx(share / 2, abs=0.01)
        assert (is_changed.any(axis=-1) == is_changed.all(axis=-1)).all()
    np.testing.assert_array_equal(
        noisy[(noisy > 0) & (noisy < 1)], clean[(noisy > 0) & (noisy < 1)]
    )


@pytest.mark.parametrize("kind", ["gaussian", "masking", "salt-and-pepper"])
def test_every_image_has_a_level_between_the_two(denoiser, kind):
    """The level is seen as what an image has lost: its standard deviation, or share of pixels."""
    clean = np.full((500, 40, 40, 1), 0.5, np.float32)
    noisy, again, other = (
        np.asarray(denoiser.corrupt(clean, kind, [0.1, 0.3], seed))
        for seed in ((1, 2), (1, 2), (1, 3))
    )
    assert (noisy == again).all() and (noisy != other).any()
    found = (noisy - clean).std(axis=(1, 2, 3))
    if kind != "gaussian":
        found = (noisy != clean).mean(axis=(1, 2, 3))
    assert 0.07 < found.min() < 0.12 and 0.27 < found.max() < 0.33
    assert found.mean() == pytest.approx(0.2, abs=0.01)
    assert found.std() == pytest.approx(0.2 / math.sqrt(12), abs=0.01)


def test_a_level_or_a_range(denoiser):
    right = {"": [0.5], "--noise 3": [3], "--noise 0.1 0.9 --corruption masking": [0.1, 0.9]}
    for words, levels in right.items():
        options = denoiser.parse_options(words.split())
        assert denoiser.choose_noise(options, False) == (options.corruption, levels)
    for words in ("--noise 0.9 0.1", "--noise 1 2 3", "--corruption salt-and-pepper --noise 1.5"):
        options = denoiser.parse_options(words.split())
        with pytest.raises(denoiser.InputError, match="--noise must be a level, or a lower and a"):
            denoiser.choose_noise(options, False)


def test_black_and_white_pixels_have_marks(denoiser):
    """The first convolution of a model that is loaded sees an image, its black and its white."""
    encoder = denoiser.build_encoder(2)
    (first,) = [layer for layer in encoder.layers if layer.name.startswith("concatenate")]
    image = np.array([0, 0.01, 0.02, 0.5, 0.98, 0.99, 1, 1], np.float32).reshape(1, 2, 2, 2)
    seen = denoiser.keras.Model(encoder.input, first.output)(image).numpy()
    black = np.maximum(1 - 50 * image, 0)
    white = np.maximum(50 * image - 49, 0)
    np.testing.assert_allclose(seen, np.concatenate([image, black, white], axis=-1), atol=1e-5)


def test_every_epoch_sees_every_image_once_in_a_new_order_with_new_noise(denoiser):
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    images = np.broadcast_to(images, (100, 8, 8, 1)).copy()

    def pair(clean, seed):
        return denoiser.add_noise(clean, 0.5, seed), clean

    def train(size, first_epoch=0):
        return list(denoiser.train_batches(images, size, 5, first_epoch, epochs=2).map(pair))

    batches = train(25)
    assert [len(clean) for _, clean in batches] == [25] * 8
    clean = np.concatenate([clean for _, clean in batches])
    order = np.rint(clean[:, 0, 0, 0] * 255).astype(int).reshape(2, 100)
    assert all(sorted(epoch) == list(range(100)) for epoch in order)
    assert (order[0] != order[1]).any() and (order[0] != np.arange(100)).any()
    noise = np.concatenate([noisy - clean for noisy, clean in batches]).reshape(2, 100, -1)
    by_image = [noise[epoch][np.argsort(order[epoch])] for epoch in (0, 1)]
    assert (np.abs(by_image[0] - by_image[1]).max(axis=1) > 0.1).all()
    np.testing.assert_array_equal(train(25, first_epoch=1)[0][0], batches[4][0])
    assert [len(clean) for _, clean in train(32)] == [32] * 6
    evaluation = denoiser.eval_batches(images, 5, "test").map(pair)
    (one, clean), (other, _) = next(iter(evaluation)), next(iter(evaluation))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(np.rint(clean * 255), images)


def test_images_mixed_with_binarized_ones(vae):
    """Each image is moved by a share of its own, and that share is uniform; the mean stays."""
    grey = np.full((2000, 20, 20, 1), 0.3, np.float32)
    moved = vae.mix_with_binarized(grey, (0, 1)).numpy().reshape(2000, -1)
    for image in moved[:50]:  # with the share s, pixels are 0.3 - 0.3 s or 0.3 + 0.7 s
        low, high = np.min(image), np.max(image)
        assert (0.3 - low) / 0.3 == pytest.approx((high - 0.3) / 0.7, abs=1e-5)
        assert set(np.unique(image)) == {low, high}
    assert np.mean(moved) == pytest.approx(0.3, abs=0.002)
    shares = 1 - moved.min(axis=1) / 0.3
    quartiles = np.quantile(shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quartiles, [0, 0.25, 0.5, 0.75, 1], atol=0.03)
    is_white = moved > 0.3
    assert len(np.unique(is_white, axis=0)) == 2000  # no two images have the same pixels
    binary = np.float32(RANDOM.random((4, 8, 8, 3)) < 0.5)
    np.testing.assert_array_equal(vae.mix_with_binarized(binary, (0, 1)), binary)


def test_the_encoder_alone_sees_noise(vae):
    """Images stay as they are; noise and epsilon are other draws for every seed."""
    images = np.full((50, 8, 8, 1), 0.4, np.float32)
    first, second = (vae.vae_batch(images, (0, n), 3, is_mixed=True) for n in (1, 2))
    for batch in (first, second):
        np.testing.assert_array_equal(batch[0], images)
        assert batch[2].shape == (50, 3)
    assert (first[1] != second[1]).numpy().mean() > 0.9
    assert not np.isin(first[2], second[2]).any()
    clean = vae.vae_batch(images, (0, 1), 3)
    np.testing.assert_array_equal(clean[1], images)


@pytest.mark.parametrize("latent_dim", [2, 3])
def test_mixing_is_for_training_with_two_dimensions(latent_dim, vae, monkeypatch, tmp_path):
    class Done(Exception):
        pass

    def fit(run, train_dataset, validation_dataset, *rest):
        images, encoder_input, _ = next(iter(train_dataset))
        is_mixed = (images != encoder_input).numpy().any()
        assert is_mixed == (latent_dim == 2)
        for images, encoder_input, _ in validation_dataset:
            np.testing.assert_array_equal(encoder_input, images)
        raise Done

    monkeypatch.setattr(vae.TrainingRun, "fit", fit)
    words = ["--limit", "100", "--latent-dim", str(latent_dim), "--model-dir", str(tmp_path)]
    with pytest.raises(Done):
        vae.main(vae.parse_options(words))


def test_the_kl_weight_rises_to_beta(vae):
    """The gradient of z_mean's bias, where the decoder does not depend on z: the KL term's."""
    networks = vae.build_encoder((28, 28, 1), 3), vae.build_decoder((28, 28, 1), 3)
    networks[1].layers[1].kernel.assign(np.zeros((3, 512)))
    bias = networks[0].get_layer("z_mean").bias
    bias.assign([1, 2, 3])
    images = np.zeros((4, 28, 28, 1), np.float32)
    z_mean = np.mean(networks[0](images)[0], axis=0)
    model = vae.VAE(*networks, beta=4.0, warm_up_steps=9)
    model.compile(keras.optimizers.SGD(0.1))
    model.optimizer.build(model.trainable_variables)
    for done, weight in ((0, 0.4), (5, 2.4), (9, 4), (500, 4)):
        before = [variable.numpy() for variable in model.trainable_variables]
        model.optimizer.iterations.assign(done)
        model.train_step((images, images, np.zeros((4, 3), np.float32)))
        np.testing.assert_allclose(bias, [1, 2, 3] - 0.1 * weight * z_mean, rtol=1e-4)
        for variable, value in zip(model.trainable_variables, before, strict=True):
            variable.assign(value)


def test_the_plane_has_the_full_kl_weight_from_the_start(vae):
    """And a smaller decoder; with more dimensions the weight rises with the learning rate."""
    train = np.zeros((6400, 28, 28, 1), np.uint8)
    found = {}
    for count in (2, 3):
        model = vae.build_vae(train, count, 1.0, vae.learning_rate(0.003, steps=500))
        layers = [layer for layer in model.decoder_logits.layers if "dense" in layer.name]
        found[count] = model.warm_up_steps, [layer.units for layer in layers]
    assert found[2] == (0, [512, 512, 512, 7 * 7 * 32])
    assert found[3] == (50, [512, 512, 7 * 7 * 64])


def test_traversals_change_the_most_active_dimensions(vae, monkeypatch, tmp_path):
    found = {}
    monkeypatch.setattr(vae, "plot_image_rows", lambda path, *texts: found.update(all=texts))
    code = np.arange(12.0)
    kl = [0.1 * (dimension % 5) + 0.001 * dimension for dimension in range(12)]

    def decoder(z):
        return vae.tf.reshape(z, (len(z), 3, 4, 1))

    vae.plot_traversals(tmp_path / "a.png", code, kl, decoder)
    _, rows, names = found["all"]
    assert names == [f"z[{dimension}]" for dimension in (9, 4, 8, 3, 7, 2, 11, 6, 1, 10)]
    changes = np.reshape(rows, (10, 11, 12)) - code
    for row, dimension in zip(changes, (9, 4, 8, 3, 7, 2, 11, 6, 1, 10), strict=True):
        np.testing.assert_allclose(row[:, dimension], np.linspace(-2, 2, 11), atol=1e-12)
        assert not np.delete(row, dimension, axis=1).any()


def test_the_encoder_tells_bright_from_dark_at_first(vae):
    """Images of one brightness each: layer normalization would hide the scale of their features."""
    vae.keras.utils.set_random_seed(0)
    train = np.full((64, 28, 28, 1), 51, np.uint8)  # 0.2
    encoder = vae.build_vae(train, 2, 1.0, vae.learning_rate(0.003, steps=10)).encoder
    images = np.ones((3, 28, 28, 1), np.float32) * np.reshape([0.1, 0.2, 0.9], (3, 1, 1, 1))
    dark, _, bright = encoder(images)[0].numpy()
    assert np.abs(bright - dark).max() > 0.1
    inner = encoder.get_layer("conv0")(images)[:, 1:-1, 1:-1].numpy()
    np.testing.assert_allclose(inner[1], 0, atol=1e-3)
    assert inner[0].max() > 0.05 and inner[2].max() > 0.05


@pytest.mark.parametrize(("latent_dim", "expected"), [(2, 2), (3, 2), (10, 0.358), (32, 0.0625)])
def test_the_decoder_starts_with_slower_sines_with_more_dimensions(latent_dim, expected, vae):
    vae.keras.utils.set_random_seed(0)
    frequencies, phases = vae.build_decoder((28, 28, 1), latent_dim).weights[:2]
    assert frequencies.shape == (latent_dim, 512) and phases.shape == (512,)
    assert np.std(frequencies) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("channels", "latent_dim", "expected"),
    [(1, 2, 4), (3, 2, 4), (1, 3, 3), (1, 32, 3), (3, 7, 3), (3, 8, 2), (3, 32, 2)],
)
def test_dense_layers_of_the_decoder(channels, latent_dim, expected, vae):
    """They fold a plane; colour images with many dimensions are better with fewer."""
    decoder = vae.build_decoder((28, 28, channels), latent_dim)
    dense = [layer for layer in decoder.layers if isinstance(layer, vae.layers.Dense)]
    assert len(dense) == expected


def test_settings_of_a_run_are_the_options_that_change_training(denoiser):
    """They decide whether a run may be resumed: see test_interruptions.py."""
    images = np.zeros((64, 28, 28, 1), np.uint8)

    def settings(*words, validation=images):
        return denoiser.run_settings(denoiser.parse_options([*words]), images, validation)

    usual = settings()
    assert settings("--model-dir", "a", "--images-dir", "b", "--resume", "--all-devices") == usual
    words = ["--corruption", "masking", "--noise", "0.1", "0.2", "--seed", "1", "--limit", "60"]
    other = settings(*words)
    changed = {name for name in usual if usual[name] != other[name]}
    assert changed == {"corruption", "noise", "seed", "limit"}
    assert settings(validation=images + 1) != usual
