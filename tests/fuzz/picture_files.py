"""Small good picture files of every kind that is met."""

import io

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from tests.fuzz.mutate import png_chunks, png_of
from tests.images.samples import GEO, PROFILE, XMP, exif, ome


def picture_files() -> dict[str, bytes]:
    """The files by a name that says what they are; those that name no reader are refused."""
    pixels = _pixels()
    return {**_png(pixels), **_pillow(pixels), **_tiff(pixels), **_codecs(pixels)}


def _pixels(height=18, width=13):
    """RGBA of 16 bits, smooth enough for lossy formats."""
    random = np.random.default_rng(5)
    rows, columns = np.mgrid[:height, :width]
    base = 1500 * (rows + columns)[..., None] * [1, 0.5, 0.25, 1]
    noisy = base + random.integers(3000, 9000, (height, width, 4))
    noisy[3, 4] = 65535
    return noisy.astype(np.uint16)


def _save(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _png(pixels):
    eight = (pixels >> 8).astype(np.uint8)
    rgb, rgba = Image.fromarray(eight[..., :3]), Image.fromarray(eight)
    gray, palette = rgb.convert("L"), rgb.quantize(9)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    info.add_text("Title", "a picture")
    info.add_text("Long", "a picture " * 30, zip=True)
    rich = _save(rgb, "PNG", exif=exif(), icc_profile=PROFILE, dpi=(300, 300), pnginfo=info)
    chunks = png_chunks(_save(rgb, "PNG"))
    colors = [(b"gAMA", bytes((0, 0, 0xB1, 0x8F))), (b"cHRM", bytes(range(32)))]
    colors += [(b"sRGB", b"\0"), (b"cICP", bytes((9, 16, 0, 1))), (b"sCAL", b"\x011\x002")]
    return {
        "png gray": _save(gray, "PNG"),
        "png gray alpha": _save(rgba.convert("LA"), "PNG"),
        "png rgb": _save(rgb, "PNG"),
        "png rgba": _save(rgba, "PNG"),
        "png palette": _save(palette, "PNG"),
        "png palette alpha": _save(palette, "PNG", transparency=bytes(range(0, 90, 10))),
        "png 1 bit": _save(gray.convert("1"), "PNG"),
        "png 2 bits": _save(rgb.quantize(4), "PNG", bits=2),
        "png 4 bits": _save(rgb.quantize(9), "PNG", bits=4),
        "png transparent gray": _save(gray, "PNG", transparency=30),
        "png transparent rgb": _save(rgb, "PNG", transparency=(1, 2, 3)),
        **{
            f"png 16 {channels}": imagecodecs.png_encode(np.squeeze(pixels[..., :channels].copy()))
            for channels in (1, 2, 3, 4)
        },
        "png 12": imagecodecs.png_encode((pixels >> 4)[..., :3].copy()),
        "png rich": rich,
        "png colors": png_of([chunks[0], *colors, *chunks[1:]]),
        "png interlaced": _interlaced(eight[..., 0]),
        "apng": _save(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90)]),
    }


def _interlaced(gray):
    """A PNG in seven passes, which Pillow reads only."""
    import zlib

    lines = b""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    for top, left, down, right in (*passes, (1, 0, 2, 1)):
        part = gray[top::down, left::right]
        if part.size:
            lines += b"".join(b"\0" + row.tobytes() for row in part)
    size = (each.to_bytes(4, "big") for each in gray.shape[::-1])
    header = b"".join(size) + bytes((8, 0, 0, 0, 1))
    return png_of([(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")])


def _pillow(pixels):
    rgba = Image.fromarray((pixels >> 8).astype(np.uint8))
    rgb = rgba.convert("RGB")
    gray, large = rgb.convert("L"), rgb.resize((90, 70), Image.Resampling.BICUBIC)
    everything = {"exif": exif(), "icc_profile": PROFILE, "xmp": XMP}
    preview = {"save_all": True, "append_images": [rgb.rotate(90)]}
    files = {
        "jpeg": _save(large, "JPEG", quality=85),
        "jpeg small": _save(rgb, "JPEG"),
        "jpeg gray": _save(gray, "JPEG"),
        "jpeg cmyk": _save(rgb.convert("CMYK"), "JPEG"),
        "jpeg progressive": _save(large, "JPEG", progressive=True),
        "jpeg restart": _save(large, "JPEG", restart_marker_blocks=2),
        "jpeg rich": _save(rgb, "JPEG", dpi=(72, 72), comment="a note", **everything),
        "mpo": _save(rgb, "MPO", **preview),
        "webp": _save(large, "WEBP"),
        "webp lossless": _save(rgb, "WEBP", lossless=True),
        "webp rich": _save(rgba, "WEBP", lossless=True, **everything),
        "webp animation": _save(rgb, "WEBP", **preview),
        "bmp": _save(rgb, "BMP"),
        "bmp gray": _save(gray, "BMP"),
        "bmp palette": _save(rgb.quantize(9), "BMP"),
        "bmp 1 bit": _save(gray.convert("1"), "BMP"),
        "gif": _save(rgb.quantize(9), "GIF"),
        "gif transparent": _save(rgb.quantize(9), "GIF", transparency=3),
        "gif animation": _save(rgb.quantize(9), "GIF", **preview),
        "avif": _save(rgb, "AVIF", **everything),
        "avif alpha": _save(rgba, "AVIF"),
        "jpeg 2000": _save(rgb, "JPEG2000"),
        "jpeg 2000 gray": _save(gray, "JPEG2000"),
    }
    for compression in ("tiff_lzw", "packbits", "tiff_adobe_deflate"):
        files[f"pillow {compression}"] = _save(rgb, "TIFF", compression=compression)
    files["pillow group4"] = _save(gray.convert("1"), "TIFF", compression="group4")
    files["pillow palette"] = _save(rgb.quantize(9), "TIFF")
    files["pillow jpeg"] = _save(rgb, "TIFF", compression="jpeg")
    files["pillow rich"] = _save(rgb, "TIFF", exif=exif(), icc_profile=PROFILE, dpi=(300, 300))
    return files


def _codecs(pixels):
    rgb = pixels[..., :3].copy()
    return {
        "jpeg xl": imagecodecs.jpegxl_encode((rgb >> 8).astype(np.uint8), lossless=True),
        "jpeg xl 16": imagecodecs.jpegxl_encode(rgb, lossless=True),
        "jpeg xl float": imagecodecs.jpegxl_encode((rgb / 65535).astype(np.float32)),
        "avif 10": imagecodecs.avif_encode(rgb >> 6, bitspersample=10),
        "jpeg 2000 16": imagecodecs.jpeg2k_encode(rgb, level=0),
        "jpeg 2000 codestream": imagecodecs.jpeg2k_encode(rgb, codecformat="j2k"),
    }


def _tiff(pixels):
    def make(array, **options):
        file = io.BytesIO()
        tifffile.imwrite(file, array, **options)
        return file.getvalue()

    rgb, gray = pixels[..., :3].copy(), pixels[..., 0].copy()
    eight = rgb >> 8
    eight = eight.astype(np.uint8)
    floats = (rgb / 65535).astype(np.float32)
    color = {"photometric": "rgb", "metadata": None}
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    large = np.tile(rgb, (4, 4, 1))
    nodata = (42113, "s", 0, "-9999", True)
    files = {
        "tiff": make(eight, **color),
        "tiff gray": make(gray),
        "tiff strips": make(rgb, rowsperstrip=5, **color),
        "tiff tiles": make(large, tile=(16, 32), **color),
        "tiff planes": make(planes, planarconfig="separate", rowsperstrip=4, **color),
        "tiff planes tiles": make(planes, planarconfig="separate", tile=(16, 16), **color),
        "tiff big": make(rgb, byteorder=">", **color),
        "tiff bigtiff": make(rgb, bigtiff=True, **color),
        "tiff bigtiff big": make(rgb, bigtiff=True, byteorder=">", compression="zlib", **color),
        "tiff float": make(floats, compression="zlib", predictor=3, **color),
        "tiff float wide": make(floats[..., 0] * 300 - 20),
        "tiff floats big": make(floats, byteorder=">", rowsperstrip=3, **color),
        "tiff white": make(gray, photometric="miniswhite"),
        "tiff 1 bit": make(gray > 20_000, photometric="minisblack"),
        "tiff palette": make(
            eight[..., 0],
            photometric="palette",
            colormap=np.arange(768, dtype=np.uint16).reshape(3, 256) * 80,
        ),
        "tiff alpha": make(pixels, extrasamples=["unassalpha"], **color),
        "tiff multiplied": make(pixels, extrasamples=["assocalpha"], **color),
        "tiff float alpha": make(
            (pixels / 65535).astype(np.float32), extrasamples=["assocalpha"], **color
        ),
        "tiff imagej": make(gray >> 4, imagej=True, metadata={"unit": "um", "spacing": 2.0}),
        "tiff imagej stack": make(np.stack([gray, gray]), imagej=True),
        "tiff ome": make(gray >> 4, description=ome(13, 18), metadata=None),
        "tiff ome own": make(gray, ome=True),
        "tiff shaped": make(gray),
        "tiff geo": make(floats[..., 0], extratags=[*GEO, nodata], metadata=None),
        "tiff pages": make(np.stack([gray, gray, gray]), photometric="minisblack"),
        "tiff stated": make(gray >> 6, extratags=[(341, "H", 1, 1023, True)], metadata=None),
        "tiff stated 8": make(eight >> 1, extratags=[(281, "H", 3, (127,) * 3, True)], **color),
        "tiff notes": make(
            rgb,
            description="a note",
            software="a program",
            resolution=((300, 1), (300, 1)),
            extratags=[(700, "B", len(XMP), XMP, True), (315, "s", 0, "somebody", True)],
            iccprofile=b"not a profile" * 10,
            **color,
        ),
    }
    for compression in ("zlib", "lzw", "packbits", "zstd", "lzma", "webp", "jpeg", "jpegxl"):
        array = eight if compression in ("webp", "jpeg") else rgb
        files[f"tiff {compression}"] = make(array, compression=compression, **color)
    for compression in ("zlib", "lzw", "zstd"):
        files[f"tiff predicted {compression}"] = make(
            rgb, compression=compression, predictor=True, rowsperstrip=6, **color
        )
    with io.BytesIO() as file:
        with tifffile.TiffWriter(file) as writer:
            writer.write(rgb, **color)
            writer.write(rgb[::4, ::4], subfiletype=1, **color)
        files["tiff thumbnail"] = file.getvalue()
    return files
