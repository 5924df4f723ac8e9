"""Colour profiles (ICC) of pictures: whose colours are kept in them, and how others become sRGB."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, ImageCms

from dloral.video.see_through import has_transparency

_OF_RGB = ("RGB", "RGBA", "RGBX", "P")


def has_rgb_profile(image: Image.Image) -> bool:
    """Whether the open picture has a profile that is true of its colours once they are RGB. That
    of a CMYK or grey picture is not."""
    return bool(image.info.get("icc_profile")) and image.mode in _OF_RGB


def as_rgb(image: Image.Image, keep_profile: bool) -> Image.Image:
    """The loaded picture as RGB, or RGBA where it has transparency, in sRGB. ``keep_profile``: in
    its own colours, if :func:`has_rgb_profile`. A broken profile counts as none."""
    usual = "RGBA" if has_transparency(image) else "RGB"
    profile = image.info.get("icc_profile")
    if not profile or (keep_profile and has_rgb_profile(image)):
        return image.convert(usual)
    try:
        own = ImageCms.ImageCmsProfile(BytesIO(profile))
        return _to_srgb(image, own, usual) or image.convert(usual)
    except (ImageCms.PyCMSError, OSError):
        return image.convert(usual)


def _to_srgb(image: Image.Image, own: ImageCms.ImageCmsProfile, usual: str) -> Image.Image | None:
    """None if the profile is not of this kind of picture."""
    of = own.profile.xcolor_space.strip()
    srgb = ImageCms.createProfile("sRGB")
    if of == "RGB" and image.mode != "CMYK":  # also of grey pictures and palettes
        return ImageCms.profileToProfile(image.convert(usual), own, srgb)
    if of == "CMYK" and image.mode == "CMYK":
        return ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
    if of == "GRAY" and image.mode in ("1", "L", "LA"):
        shown = ImageCms.profileToProfile(image.convert("L"), own, srgb, outputMode="RGB")
        if shown is not None and usual == "RGBA":
            shown.putalpha(image.convert(usual).getchannel("A"))
        return shown
    return None
