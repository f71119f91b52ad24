"""Read picture files: for prepare_data.py, and for the examples that take picture files.

Pillow reads most kinds, and tifffile the TIFF files of more than 8 bits. HEIC, DICOM and PDF files
need pillow-heif, pydicom or pypdfium2.
"""

import json
import logging
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tifffile
from PIL import ExifTags, Image, ImageOps, ImageSequence, UnidentifiedImageError
from tqdm import tqdm

SUFFIXES = ".png .jpg .jpeg .jpe .jfif .bmp .gif .tif .tiff .webp .pbm .pgm .ppm .pnm .pfm .jp2 "
SUFFIXES += ".j2k .jpx .tga .avif .heic .heif .dcm .dicom .pdf"
ROTATED = "are rotated as their EXIF data say"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
STARTS = (*TIFF, b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF", b"RIFF", b"BM")
LARGEST = 1_000_000_000  # pixels of a picture: 3 GB in RGB
Image.MAX_IMAGE_PIXELS = None  # LARGEST is checked instead
PDF_DPI = 150  # a page of A4 has 1240 x 1754 pixels then
SAMPLE = 100  # values of each page that tell whether others are outliers
OUTLIERS = 4  # say so where a few values make the range as many times as wide
WORKERS = 2  # pictures in memory at the same time; one of 12 megapixels takes up to 150 MB
logging.getLogger("tifffile").disabled = True  # what cannot be read is an exception


def fail(message):
    """End the script with one line about a user error."""
    text = " ".join(str(message).split())
    text = text.removeprefix("argument ").replace(": must", " must", 1)  # from argparse's text
    print("error:", text, file=sys.stderr)
    sys.exit(2)


# ---- Files to pixels -----------------------------------------------------------------------------


def read_pages(path, notes):
    """Yield the pixels of each page of a picture file, or of an array; add to the list `notes`."""
    if isinstance(path, np.ndarray):
        frames = [path]
    elif is_dicom(path):
        frames = dicom_frames(path)
    elif first_bytes(path).startswith(b"%PDF"):
        frames = pdf_frames(path, notes)
    elif first_bytes(path).startswith(TIFF):
        frames = tiff_frames(path, notes)
    else:
        frames = pillow_frames(path)
    for frame in frames:
        yield pixels_of(frame, notes)


def first_bytes(path):
    """Return the bytes that tell of which kind a file is."""
    with path.open("rb") as file:
        return file.read(132)


def is_dicom(path):
    """Return whether a file is of DICOM, which may have no suffix."""
    return first_bytes(path)[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def pillow_frames(path):
    """Yield the frames of a file that Pillow reads, without thumbnails."""
    start = first_bytes(path).lower()
    if start[4:8] == b"ftyp" and start[8:11] != b"avi":
        import pillow_heif

        pillow_heif.register_heif_opener()
    try:
        picture = Image.open(path)
    except UnidentifiedImageError:
        is_html = b"<html" in start or b"<!doctype html" in start
        found = "an HTML page" if is_html else "damaged or of a kind that is not read"
        raise ValueError(f"is {found}") from None
    if picture.width * picture.height > LARGEST:
        found = f"{picture.width:,} x {picture.height:,}"
        raise ValueError(f"must have at most {LARGEST:,} pixels, found {found}")
    has_extras = picture.format == "MPO"  # of one picture, such as its depth
    for frame in [picture] if has_extras else ImageSequence.Iterator(picture):
        if picture.format != "TIFF" or not picture.tag_v2.get(254, 0) & 1:
            yield frame


def tiff_frames(path, notes):
    """Yield the pages of a TIFF file; Pillow reads those that are upright and of 8 bits."""
    kinds = tifffile.PHOTOMETRIC
    with tifffile.TiffFile(path) as file:
        first = file.pages.first
        orientation = first.tags.valueof(274, default=1)
        is_stack = file.series[0].size > len(file.pages) * first.size  # ImageJ: one page of many
        if orientation == 1 and first.dtype in (np.bool_, np.uint8) and not is_stack:
            yield from pillow_frames(path)
            return
        if orientation > 1:
            notes.append(ROTATED)
        for series in file.series:
            kind = series.keyframe.photometric
            if kind not in (kinds.MINISBLACK, kinds.MINISWHITE, kinds.RGB):
                must = "rotated or of 16 bits must be grayscale or RGB"
                raise ValueError(f"{must}, found {kind.name}")
            for values in series.asarray().reshape(-1, *series.keyframe.shape):
                values = ~values if kind == kinds.MINISWHITE else values
                if values.ndim == 3 and values.shape[2] not in (3, 4):
                    values = np.moveaxis(values, 0, -1)
                yield upright(values, orientation)


def upright(values, orientation):
    """Return pixels rotated and flipped as the EXIF orientation, 1 to 8."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def dicom_frames(path):
    """Return the frames of a DICOM file, with its own scale (for CT: Hounsfield units)."""
    import pydicom.pixels

    data = pydicom.dcmread(path, force=True)
    values = pydicom.pixels.apply_rescale(data.pixel_array, data)
    if data.PhotometricInterpretation == "MONOCHROME1":  # the minimum is white
        values = values.max() + values.min() - values
    has_frames = int(data.get("NumberOfFrames") or 1) > 1
    return values if has_frames else [values]


def pdf_frames(path, notes):
    """Yield the pages of a PDF file, drawn at PDF_DPI."""
    import pypdfium2

    for page in pypdfium2.PdfDocument(path):
        notes.append(f"are drawn at {PDF_DPI} dpi")
        yield page.render(scale=PDF_DPI / 72).to_pil()


def pixels_of(picture, notes):
    """Return pixels (height, width[, 3]) of a Pillow image or an array."""
    if isinstance(picture, np.ndarray) and picture.dtype in (bool, np.uint8):
        picture = Image.fromarray(np.squeeze(picture))
    if isinstance(picture, Image.Image):
        if picture.getexif().get(ExifTags.Base.Orientation, 1) > 1:
            notes.append(ROTATED)
            picture = ImageOps.exif_transpose(picture)
        if picture.mode[0] not in "IF":  # of more than 8 bits
            picture = as_gray_or_rgb(picture, notes)
    pixels = np.squeeze(np.asarray(picture))
    if pixels.shape[2:] == (4,):
        notes.append("are used without their fourth channel")
        pixels = pixels[..., :3]
    if pixels.ndim < 2 or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"must be (height, width) with 1, 3 or 4 channels, found {pixels.shape}")
    if pixels.dtype.kind not in "uif" or not np.isfinite([pixels.min(), pixels.max()]).all():
        raise ValueError("must have finite numbers, found others")
    return pixels


def as_gray_or_rgb(picture, notes):
    """Return a Pillow image of 8 bits in mode L or RGB, with white for what is transparent."""
    if picture.mode == "CMYK":
        notes.append("are converted from CMYK")
    if not picture.has_transparency_data:
        mode = "L" if picture.mode in ("1", "L") else "RGB"
        return picture if picture.mode == mode else picture.convert(mode)
    layer = picture.convert("RGBA")
    alpha = layer.getchannel("A")
    if alpha.getextrema()[0] < 255:
        notes.append("have transparency, put on white")
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=alpha)
    return white


# ---- Pixels to bytes -----------------------------------------------------------------------------


def kind_of(pixels):
    """Return the kind of values, each of which has a range of its own."""
    if pixels.dtype == np.uint8:
        return "bytes"
    return "floats" if pixels.dtype.kind == "f" else "integers"


def summary(pixels):
    """Return the kind of values, their minimum and maximum, and a sample of deep ones."""
    kind = kind_of(pixels)
    places = np.linspace(0, pixels.size - 1, SAMPLE if kind != "bytes" else 0).astype(int)
    return kind, pixels.min().item(), pixels.max().item(), np.float32(pixels.flat[places])


def guess_range(kind, low, high):
    """Return the values that become black and white, from the extremes of all images."""
    for black, white in ((0, 1), (-1, 1), (0, 255)):
        slack = 0.1 * (white - black) if kind == "floats" else 0  # as after resizing
        if black - slack <= low and white / 4 <= high <= white + slack:
            return black, white
    if low >= 0 and 0 < high < 255:
        return 0, high
    return low, max(high, low + 1)  # constant images become black


def ranges_of(found, options, known=None):
    """Return {kind: (low, high)}, the values that become black and white, and say so.

    They are --range, or `known`, or else by the summaries of all pages, `found`.
    """
    ranges = {}
    for kind in sorted({kind for kind, *_ in found}):
        pages = [values for each, *values in found if each == kind]
        low = min(low for low, _, _ in pages)
        high = max(high for _, high, _ in pages)
        black, white = options.range or known or guess_range(kind, low, high)
        ranges[kind] = (black, white)
        if (black, white) != (0, 255):
            text = f"{black:.6g} is used as black, {white:.6g} as white"
            print(f"{kind} from {low:.6g} to {high:.6g}: {text}")
        if kind != "bytes" and not options.range and not known:
            sample = np.concatenate([sample for _, _, sample in pages])
            start, end = np.percentile(sample, [0.05, 99.95])
            if start < end and high - low > OUTLIERS * (end - start):
                text = f"99.9% of them lie in {start:.6g} to {end:.6g}"
                print(f"{text}, which --range {start:.6g} {end:.6g} uses")
    return ranges


def as_image(pixels, ranges):
    """Return pixels as a Pillow image; values beyond the range of their kind are clipped."""
    kind = kind_of(pixels)
    low, high = ranges[kind]
    if kind != "bytes" or (low, high) != (0, 255):
        values = pixels.astype(np.result_type(pixels.dtype, np.float32))
        pixels = np.uint8(np.rint(255 * np.clip((values - low) / (high - low), 0, 1)))
    return Image.fromarray(pixels)


def resize(picture, height, width, fit):
    """Return a Pillow image of a size; `fit` is "pad", "crop" or "stretch"."""
    if fit == "stretch":
        return picture.resize((width, height))
    if fit == "crop":
        return ImageOps.fit(picture, (width, height))
    picture = ImageOps.contain(picture, (width, height))
    pixels = np.atleast_3d(np.asarray(picture))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(border, axis=0).astype(int)
    return ImageOps.pad(picture, (width, height), color=tuple(colour.tolist()))


# ---- Many files ----------------------------------------------------------------------------------


def find_files(folder):
    """Return the files of a folder and its subfolders in order, without hidden ones."""
    files = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
        if path.is_file() and not is_hidden:
            files.append(path)
    return files


def is_picture(path):
    """Return whether a file is one by its suffix or, if it has none, by its first bytes."""
    suffix = path.suffix.lower()
    if suffix and not suffix[1:].isdecimal():  # numbers are parts of names: 1.2.840.1
        return suffix in SUFFIXES.split()
    return first_bytes(path).startswith(STARTS) or is_dicom(path)


def find_pictures(folder):
    """Return the pictures of a folder, and say which other files it has."""
    files = find_files(folder)
    found = [file for file in files if is_picture(file)]
    say_skipped(folder, set(files) - set(found))
    return found


def say_skipped(folder, paths):
    """Say how many files were skipped, by suffix."""
    suffixes = Counter(path.suffix.lower() or "without suffix" for path in paths)
    if suffixes:
        counts = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common())
        print(f"{folder}: skipped {counts}")


def for_each_picture(paths, work, options, unit="picture"):
    """Return {path: work(path)} of the pictures, or other files, that can be read."""

    def attempt(path):
        try:
            return work(path), None
        except ImportError as error:
            return None, f"needs: pip install {error.name.partition('.')[0]}"
        except Exception as error:  # Pillow and others report a damaged file in many ways
            return None, " ".join(str(error).split())[:200]

    with ThreadPoolExecutor(WORKERS) as pool, warnings.catch_warnings(action="ignore"):
        progress = tqdm(pool.map(attempt, paths), total=len(paths), unit=unit, disable=None)
        found = dict(zip(paths, progress, strict=True))
    failures = {}
    for path, (_, error) in found.items():
        if error:
            failures.setdefault(error, []).append(str(path))
    count = sum(map(len, failures.values()))
    if count:
        named = [f"{', '.join(names[:10])}: {error}" for error, names in failures.items()]
        text = f"{count:,} of {len(paths):,} {unit}s cannot be read ({'; '.join(named[:10])})"
        if count == len(paths) or "skip_unreadable" not in options:
            fail(text)
        if not options.skip_unreadable:
            fail(f"{text}; --skip-unreadable leaves them out")
        print(f"skipped: {text}")
    return {path: result for path, (result, error) in found.items() if not error}


# ---- For a trained model -------------------------------------------------------------------------


def model_range(folder):
    """Return the range of the values that a model was trained on, (low, high), or None."""
    path = folder / "metrics.json"
    return json.loads(path.read_text()).get("pixel_range") if path.is_file() else None


def readable_pictures(paths, options, known=None):
    """Return the pictures that can be read, and {kind: (low, high)} of their first pages."""

    def look(path):
        pages = read_pages(path, [])
        return summary(next(pages)), next(pages, None) is not None

    found = for_each_picture(paths, look, options)
    several = sum(has_more for _, has_more in found.values())
    if several:
        print(f"{several:,} files have several pages or frames; the first of each is used")
    deep = [page for page, _ in found.values() if page[0] != "bytes" or options.range]
    highest = max((high for (_, _, high, _), _ in found.values()), default=0)
    if highest == 1 and not deep:
        fail("pictures must have values up to 255, or --range 0 1, found 0 and 1 only")
    return [*found], {"bytes": (0, 255), **ranges_of(deep, options, known)}


def read_picture(path, ranges):
    """Return the first page of a picture file as an upright Pillow image, grayscale or RGB."""
    return as_image(next(read_pages(path, [])), ranges)


def read_resized_pictures(paths, shape, model_dir, options):
    """Return {path: float32 image (*shape) in [0, 1]} of picture files, padded to the shape."""
    height, width, channels = shape
    paths, ranges = readable_pictures(paths, options, model_range(model_dir))

    def read(path):
        picture = read_picture(path, ranges).convert("L" if channels == 1 else "RGB")
        return np.float32(resize(picture, height, width, "pad")).reshape(shape) / 255

    return for_each_picture(paths, read, options)
