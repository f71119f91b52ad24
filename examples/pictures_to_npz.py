# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["numpy>=2,<3", "pillow>=11", "tqdm>=4.66,<5"]
# ///
"""Collect pictures in an .npz file, on which both scripts can train with --data.

    python examples/pictures_to_npz.py photos --output new.npz --size 64

Takes a folder of PNG, JPEG, BMP, GIF, TIFF and WebP files, or of IDX files, the format of MNIST.
Writes x_train, uint8 (n, height, width, 1 or 3), in random order, and y_train, the subfolder of
each. Folders named train, val (or valid, validation) and test become x_train, x_val and x_test.

Training on large pictures needs random crops. A tenth of the pictures each, or of their area if
they are few, is set apart for x_val and x_test before crops are drawn:

    python examples/pictures_to_npz.py photos --output patches.npz --crop 32 --count 50000 --grey

Pairs, to train the denoiser on noise of your own: a folder of the same names in --noisy.

    python examples/pictures_to_npz.py clean --noisy dirty --output pairs.npz --crop 48
"""

import gzip
import hashlib
import math
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import common

parser = common.Parser(__doc__)
text = "folder of pictures or IDX files, or one IDX file"
parser.add_argument("folder", type=common.existing, metavar="DIR", help=text)
parser.add_output("FILE", ".npz file to write")
size = parser.add_mutually_exclusive_group()
side = common.integer(8, 256)
size.add_argument("--size", type=side, metavar="N", help="resize to N x N pixels, 8 to 256")
size.add_argument("--crop", type=side, metavar="N", help="random crops of N x N, 8 to 256")
parser.add_integer("--count", 1, 10**7, 10000, "number of crops in x_train")
text = "folder of noisy pictures, with the names and sizes of the clean ones in DIR"
parser.add_argument("--noisy", type=common.existing, metavar="DIR", help=text)
parser.add_argument("--grey", action="store_true", help="one channel instead of three")
parser.add_range()
parser.add_skip_unreadable()
parser.add_integer("--seed", 0, 2**31 - 1, 0, "seed of the order, the split and the crops")
if __name__ == "__main__":
    options = parser.parse_args()  # before the slow imports: --help and mistakes answer at once
    common.refuse_to_overwrite([options.output], options)
with common.quiet_imports():
    import numpy as np
    from PIL import ExifTags

PARTS = {  # names of folders
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
HELD_OUT = 10  # one picture of so many, or such a share of the area, for each of val and test
NOISY, CLEAN = ("noisy", "dirty", "input"), ("clean", "target")  # in names of folders
FILE_KINDS = {  # how other files begin, what they are, and how to make an .npz file of them
    b"\x89HDF": ("HDF5", "numpy.savez('x.npz', x_train=h5py.File(FILE)[NAME][:])"),
    b"MATLAB": ("MATLAB", "numpy.savez('x.npz', x_train=scipy.io.loadmat(FILE)[NAME])"),
    b"\x93NUMPY": ("NumPy", "--data of both scripts takes the file itself"),
    b"PK": ("NumPy or zip", "--data of both scripts takes an .npz file itself; unzip others"),
    b"\x80": (
        "a pickle",
        "which can run code when it is read; numpy.savez('x.npz', x_train=IMAGES)",
    ),
}
TEXT = "numpy.loadtxt(FILE, delimiter=',').reshape(-1, HEIGHT, WIDTH).astype('uint8')"
IDX_START = b"\0\0\x08"  # bytes; then the number of dimensions, and each as four bytes


@dataclass
class Area:
    """A rectangle of a picture, for one part of the data, with the windows to cut from it."""

    path: Path
    part: str  # train, val or test
    label: str
    top: int
    left: int
    height: int
    width: int
    windows: list = field(default_factory=list)  # (row in the array, top, left)


# ---- Pictures ------------------------------------------------------------------------------------


def part_and_label(path):
    """Return the part that a folder of a relative path names, if any, and the other folders."""
    folders = list(path.parts[:-1])
    for index, name in enumerate(folders):
        if name.lower() in PARTS:
            del folders[index]
            return PARTS[name.lower()], "/".join(folders) or "."
    return None, "/".join(folders) or "."


def need_no_pairs(paths):
    """End the script if folders beside each other have the names of noisy and clean pictures."""
    folders = {parent for path in paths for parent in path.parents if parent.name}
    for dirty in sorted(folders):
        for clean in sorted(folders):
            says_noisy = any(name in dirty.name.lower() for name in NOISY)
            says_clean = any(name in clean.name.lower() for name in CLEAN)
            if dirty.parent == clean.parent and dirty != clean and says_noisy and says_clean:
                text = f"folders {dirty} and {clean}; accepted: the clean one as DIR"
                common.fail(f"{text}, the other by --noisy; or other names, if they are classes")


def size_and_channels(path):
    """Return height and width of a picture when upright, and the channels, 1 or 3."""
    picture, kind = common.open_picture(path)
    with picture:
        if picture.format == "TIFF":  # of these, Pillow itself turns the size or the whole picture
            picture.load()
        width, height = picture.size
        if picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # turned by 90 degrees
            width, height = height, width
        is_grey = kind != "bytes" or picture.mode in ("1", "L", "LA", "La")
        return height, width, 1 if is_grey else 3


def by_name(paths, folder):
    """Return {relative path without suffix: path}; two pictures of one name end the script."""
    named = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("")
        if name in named:
            text = f"{named[name]} and {path} have the same name"
            common.fail(f"{text}; accepted: one picture of each name, to find its partner")
        named[name] = path
    return named


def find_partners(paths, options):
    """Return {clean picture: noisy picture} of equal relative names, suffixes apart."""
    clean = by_name(paths, options.folder)
    noisy = by_name(common.find_pictures(options.noisy), options.noisy)
    partners = {clean[name]: noisy[name] for name in clean if name in noisy}
    alone = [clean[name] for name in clean if name not in noisy]
    alone += [noisy[name] for name in noisy if name not in clean]
    if alone:
        names = ", ".join(str(path) for path in alone[:10])
        print(f"skipped {len(alone):,} pictures without a partner of the same name: {names}")
    if not partners:
        common.fail(f"no picture of {options.noisy} has the name of one of {options.folder}")
    return partners


def large_enough(sizes, options):
    """Return the pictures of {path: (height, width, channels)} that have room for a crop."""
    small = [path for path, size in sizes.items() if min(size[:2]) < options.crop]
    if small:
        names = ", ".join(str(path) for path in small[:10])
        text = f"{len(small):,} of {len(sizes):,} pictures are smaller than --crop {options.crop}"
        if len(small) == len(sizes):
            common.fail(f"{text}; accepted: a smaller number")
        print(f"skipped: {text}: {names}")
    return {path: size for path, size in sizes.items() if min(size[:2]) >= options.crop}


def find_areas(sizes, options):
    """Return the areas of pictures {path: (height, width, channels)}, by the names of folders."""
    areas = []
    named = Counter()
    for path, (height, width, _) in sizes.items():
        part, label = part_and_label(path.relative_to(options.folder))
        named[part] += 1
        areas.append(Area(path, part or "train", label, 0, 0, height, width))
    if set(named) != {None} and (None in named or "train" not in named):
        counts = ", ".join(f"{count:,} in {part or 'others'}" for part, count in named.items())
        text = f"{options.folder}: pictures in folders named as parts of the data: {counts}"
        accepted = "accepted: all in train, val and test, some of them in train"
        common.fail(f"{text}; {accepted}; or no such folders")
    if options.crop and len(named) == 2:  # the scripts would take crops for the other from x_train
        names = " and ".join(sorted(named))
        text = f"{options.folder} has folders for {names} alone"
        common.fail(f"{text}; accepted with --crop: train, val and test; or no such folders")
    if options.crop and named.keys() <= {None, "train"}:
        areas = split_areas(areas, options)
    return areas


def split_areas(areas, options):
    """Set some of the pictures apart for val and test, or, with fewer than ten, some of the area.

    Crops of one picture overlap, so those of a picture in two parts would make the test too easy.
    """
    order = np.random.default_rng(options.seed).permutation(len(areas))
    held_out = len(areas) // HELD_OUT
    if held_out:
        for index in order[:held_out]:
            areas[index].part = "test"
        for index in order[held_out : 2 * held_out]:
            areas[index].part = "val"
        return areas
    strips = [strip for area in areas for strip in cut_in_strips(area, options.crop)]
    if len(strips) == len(areas):
        text = f"fewer than ten pictures, all with sides under {3 * options.crop} pixels"
        common.fail(f"{text}; accepted: ten pictures, or --crop of a third of a side or less")
    return strips


def cut_in_strips(area, crop):
    """Return the parts of a picture along its longer side: train, val and test, none overlapping.

    A picture that is too small for three strips stays whole.
    """
    length = max(area.height, area.width)
    strip = max(crop, length // HELD_OUT)
    if length < 3 * crop:
        return [area]
    cuts = {
        "train": (0, length - 2 * strip),
        "val": (length - 2 * strip, length - strip),
        "test": (length - strip, length),
    }
    strips = []
    for part, (start, stop) in cuts.items():
        if area.height > area.width:
            place = (start, 0, stop - start, area.width)
        else:
            place = (0, start, area.height, stop - start)
        strips.append(Area(area.path, part, area.label, *place))
    return strips


def plan_crops(areas, options):
    """Draw the places of the crops in each part; return {part: labels of the crops}.

    Large areas get more: each place in a picture is as likely as any other.
    """
    draw = np.random.default_rng(options.seed)
    labels = {}
    for part in sorted({area.part for area in areas}):
        some = [area for area in areas if area.part == part]
        rows = np.array([area.height - options.crop + 1 for area in some])
        columns = np.array([area.width - options.crop + 1 for area in some])
        places = rows * columns
        count = options.count if part == "train" else max(1, options.count // HELD_OUT)
        chosen = draw.choice(len(some), count, p=places / places.sum())
        for row, index in enumerate(chosen):
            area = some[index]
            top = area.top + draw.integers(rows[index])
            left = area.left + draw.integers(columns[index])
            area.windows.append((row, top, left))
        labels[part] = [some[index].label for index in chosen]
    return labels


def plan_whole(areas, options):
    """Give each whole picture a row of its part's array; return {part: labels of the rows}."""
    sizes = sorted({(area.height, area.width) for area in areas})
    if len(sizes) > 1 and not options.size:
        text = f"pictures of {len(sizes)} sizes, {sizes[0]} and {sizes[-1]}"
        common.fail(f"{text}; try --size or --crop")
    labels = {}
    for index in np.random.default_rng(options.seed).permutation(len(areas)):
        part_labels = labels.setdefault(areas[index].part, [])
        areas[index].windows.append((len(part_labels), 0, 0))
        part_labels.append(areas[index].label)
    return labels


def fill_arrays(arrays, filled, areas, ranges, options):
    """Return a function that reads a picture and puts its windows in rows of the arrays."""
    areas_of = {}
    for area in areas:
        areas_of.setdefault(area.path, []).append(area)

    def fill(path, file, suffix):
        """Put the windows planned for `path` in the arrays, with the pixels of `file`."""
        picture = common.read_picture(file, ranges)
        brightest = 0
        for area in areas_of[path]:
            images = arrays[f"x_{area.part}{suffix}"]
            side = (options.crop, options.crop) if options.crop else (area.height, area.width)
            for row, top, left in area.windows:
                box = (left, top, left + side[1], top + side[0])
                window = picture if picture.size == side[::-1] else picture.crop(box)
                if options.size:
                    window = window.resize((options.size, options.size))
                window = window.convert("L" if images.shape[3] == 1 else "RGB")
                images[row] = np.atleast_3d(np.asarray(window))
                filled[area.part][row] = file == path  # the clean one of a pair comes last
                brightest = max(brightest, int(images[row].max()))
        return brightest

    return fill


def picture_arrays(paths, options):
    """Return {name: array} of pictures."""
    need_no_pairs([path.relative_to(options.folder) for path in paths])
    partners = find_partners(paths, options) if options.noisy else {}
    paths = [path for path in paths if path in partners or not options.noisy]
    files = [*paths, *partners.values()]
    ranges = common.value_ranges(files, options)
    sizes = common.for_each_picture(files, size_and_channels, options)
    for clean, noisy in partners.items():
        if {clean, noisy} <= sizes.keys() and sizes[clean][:2] != sizes[noisy][:2]:
            text = f"{clean} is {sizes[clean][:2]} and {noisy} is {sizes[noisy][:2]}"
            common.fail(f"{text}; accepted: pairs of one size")
    channels = 1 if options.grey else max(size[2] for size in sizes.values())
    whole = {
        path: sizes[path] for path in paths if {path, partners.get(path, path)} <= sizes.keys()
    }
    if options.crop:
        whole = large_enough(whole, options)
    areas = find_areas(whole, options)
    labels = plan_crops(areas, options) if options.crop else plan_whole(areas, options)
    side = options.crop or options.size
    height, width = (side, side) if side else (areas[0].height, areas[0].width)
    arrays = {}
    filled = {}
    for part, names in labels.items():
        for suffix in ("", "_noisy") if options.noisy else ("",):
            arrays[f"x_{part}{suffix}"] = np.empty((len(names), height, width, channels), np.uint8)
        arrays[f"y_{part}"] = np.array(names)
        filled[part] = np.zeros(len(names), bool)
    fill = fill_arrays(arrays, filled, areas, ranges, options)

    def read(path):
        if options.noisy:
            fill(path, partners[path], "_noisy")
        return fill(path, path, "")

    used = dict.fromkeys(area.path for area in areas if area.windows)
    common.need_brightness(max(common.for_each_picture([*used], read, options).values()))
    for part, rows in filled.items():
        if not rows.all():  # pictures that could not be read
            for name in [name for name in arrays if name[2:].startswith(part)]:
                arrays[name] = arrays[name][rows]
    say_if_grey(arrays["x_train"])
    return arrays


# ---- IDX files -----------------------------------------------------------------------------------


def read_idx(path):
    """Return the array of an IDX file of bytes, plain or gzip; None if it is none."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            common.fail(f"{path} cannot be read: {error}")
    if not content.startswith(IDX_START) or len(content) < 8:
        return None
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4]) for at in range(4, start, 4)]
    values = np.frombuffer(content[start:], np.uint8)
    if len(content) < start or len(values) != math.prod(shape):
        common.fail(f"{path} has {len(values):,} values; accepted: {shape}, as it says itself")
    return values.reshape(shape)


def idx_arrays(files):
    """Return {name: array} of IDX files: those with t10k or test in their name are for the test."""
    arrays = {}
    for path in files:
        values = read_idx(path)
        if values is None or values.ndim not in (1, 3):
            continue
        part = "test" if "t10k" in path.name or "test" in path.name else "train"
        name = ("x_" if values.ndim == 3 else "y_") + part
        if name in arrays:
            common.fail(f"{path} is a second file for {name}; accepted: one data set in a folder")
        if values.ndim == 3 and path.name.startswith("emnist"):
            print(f"{path}: EMNIST stores its images transposed; they are turned")
            values = values.transpose(0, 2, 1)
        arrays[name] = values
    if arrays and "x_train" not in arrays:
        common.fail(f"IDX files for {', '.join(arrays)}; accepted: training images, too")
    return arrays


def need_folder(path):
    """End the script with what a file is that it cannot read, and what to do with it."""
    if path.is_dir():
        return
    start = path.read_bytes()[:8]
    for beginning, (kind, advice) in FILE_KINDS.items():
        if start.startswith(beginning):
            common.fail(f"{path} is {kind}: {advice}")
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        common.fail(f"{path} is text: numpy.savez('x.npz', x_train={TEXT})")
    common.fail(f"{path}: accepted: a folder of pictures, or IDX files")


def say_if_copied(paths):
    """Say how many files have the content of another one: such a pair may end in two parts."""
    sizes = Counter(path.stat().st_size for path in paths)
    contents = Counter()
    for path in paths:
        if sizes[path.stat().st_size] > 1:
            with path.open("rb") as file:
                contents[hashlib.file_digest(file, "sha256").digest()] += 1
    copies = contents.total() - len(contents)
    if copies:
        found = f"{copies:,} of {len(paths):,} pictures are copies of others or links to them"
        print(f"{found};", end=" ")
        print("remove them: a picture both in training and test makes the test too easy")


def say_if_grey(images):
    """Say so if images (n, height, width, 3) have no colour: scans are often stored like that."""
    if images.shape[3] == 3 and all((image == image[..., :1]).all() for image in images):
        print("all pictures are grey, though stored in colour: with --grey, training is faster")


def main(options):
    if options.folder.is_file():
        arrays = idx_arrays([options.folder])
    else:
        arrays = idx_arrays(sorted(options.folder.glob("*-ubyte*")))
    if arrays and (options.size or options.crop or options.noisy or options.grey):
        text = f"{options.folder} has IDX files"
        common.fail(f"{text}; accepted for them: neither --size, --crop, --noisy nor --grey")
    if not arrays:
        need_folder(options.folder)
        paths = common.find_pictures(options.folder)
        if not paths:
            text = f"{options.folder} has no pictures; accepted: {', '.join(common.FORMATS)}"
            common.fail(f"{text}, or IDX files named *-ubyte or *-ubyte.gz")
        say_if_copied(paths)
        try:
            arrays = picture_arrays(paths, options)
        except MemoryError as error:
            text = "not enough memory; accepted: a smaller --size, --crop or --count"
            common.fail(f"{text}; {error}")
    for name, array in arrays.items():
        if name.startswith("x"):
            print(f"{name}: {len(array):,} images, {array.shape[1:]}")
    with common.new_file(options.output) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main(options)
