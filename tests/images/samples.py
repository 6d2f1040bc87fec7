"""Metadata for pictures of the tests."""

from PIL import ExifTags, Image, ImageCms

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><about/></x:xmpmeta>'
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GEO = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0), True),
    (42112, "s", 0, "<GDALMetadata/>", True),
]


def ome(width, height):
    """The description of a gray OME-TIFF file of 16 bits."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/'
        'OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        f'Type="uint16" SizeX="{width}" SizeY="{height}" SizeZ="1" SizeC="1" SizeT="1" '
        'PhysicalSizeX="0.108" PhysicalSizeXUnit="µm"><Channel ID="Channel:0:0"/><TiffData/>'
        "</Pixels></Image></OME>"
    ).encode()


def exif():
    found = Image.Exif()
    found.update({274: 6, 271: "Cam", 306: "2024:01:02 03:04:05"})
    camera = {0x829A: 0.01, 0x8827: 1600, 0x9286: b"ASCII\0\0\0hi"}
    found.get_ifd(ExifTags.IFD.Exif).update(camera)
    found.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 8.0, 30.0)})
    return found


def check_exif(block):
    """Checks that a block of a picture holds what `exif` does."""
    found = Image.Exif()
    found.load(block)
    assert (found[274], found[271], found[306]) == (6, "Cam", "2024:01:02 03:04:05")
    camera = found.get_ifd(ExifTags.IFD.Exif)
    assert (float(camera[0x829A]), camera[0x8827], camera[0x9286]) == (0.01, 1600, b"ASCII\0\0\0hi")
    place = found.get_ifd(ExifTags.IFD.GPSInfo)
    assert (place[1], [float(each) for each in place[2]]) == ("N", [48, 8, 30])
