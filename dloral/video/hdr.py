"""High dynamic range: PQ, HLG and linear light to pictures a model knows, and back.

Models are trained on display-referred SDR. PQ (SMPTE ST 2084) looks flat and grey to them, and
linear light black. So both are restored in an encoding that is an SDR picture up to reference white
(203 cd/m2, ITU-R BT.2408) and holds everything brighter in the rest of its range: a plain power law
up to there, PQ's own spacing above. It can be inverted exactly. HLG (ITU-R BT.2100) is designed to
be shown as SDR, so it is restored as it is (our decisions).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import torch
from av import VideoFrame
from av.sidedata.sidedata import Type as SideData
from torch import Tensor

from dloral.video.side_data import side_data_of

LINEAR, PQ, SRGB, HLG = 8, 16, 13, 18
"""Transfer characteristics of ISO/IEC 23091-2."""

NAMES = {LINEAR: "linear light", PQ: "PQ", HLG: "HLG"}

WIDE = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
"""Primaries of ISO/IEC 23091-2 that have more colours than sRGB."""

WHITE_NITS = 203.0
_PEAK_NITS = 10_000.0
_WHITE_CODE = 0.7
"""Where reference white lies in the encoding that is restored; highlights lie above it."""

_GAMMA = 2.4
_DISPLAY_NITS = 1000.0
"""The display for which HLG is converted to light (BT.2100, table 5), and the peak for tone mapping
if a source does not specify one."""

# SMPTE ST 2084
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32

# ITU-R BT.2100, table 5
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073

_LUMA_2020 = torch.tensor([0.2627, 0.6780, 0.0593])
_BT2020_TO_BT709 = torch.tensor(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
"""ITU-R BT.2087-0, annex 2."""


@dataclass(frozen=True)
class Mastering:
    """The display a film was graded on and how bright it gets (SMPTE ST 2086, CTA-861.3).

    ``primaries``: x and y of red, green and blue, ``white``: of the white point, in units of
    0.00002; ``luminance``: least and most, in units of 0.0001 cd/m2; each None where it is not
    said. ``max_cll``, ``max_fall``: cd/m2, 0 where not said.
    """

    primaries: tuple[int, ...] | None = None
    white: tuple[int, int] | None = None
    luminance: tuple[int, int] | None = None
    max_cll: int = 0
    max_fall: int = 0

    @property
    def peak(self) -> float:
        """The brightest light in cd/m2, as far as the metadata say."""
        told = self.max_cll or (self.luminance[1] / 10_000 if self.luminance else 0)
        return min(max(told, WHITE_NITS), _PEAK_NITS) if told else _DISPLAY_NITS


def mastering_of(frame: VideoFrame) -> Mastering | None:
    """What the frame's side data say; None if they say nothing."""
    raw = side_data_of(frame)
    found = Mastering()
    if (display := raw.get(SideData.MASTERING_DISPLAY_METADATA)) and len(display) >= 88:
        found = _display(struct.unpack("<22i", display[:88]))
    if (light := raw.get(SideData.CONTENT_LIGHT_LEVEL)) and len(light) >= 8:
        max_cll, max_fall = struct.unpack("<2I", light[:8])
        found = Mastering(found.primaries, found.white, found.luminance, max_cll, max_fall)
    return found if found != Mastering() else None


def _display(words: tuple[int, ...]) -> Mastering:
    """FFmpeg's AVMasteringDisplayMetadata: ten fractions, then two flags."""
    pairs = [(words[at], words[at + 1] or 1) for at in range(0, 20, 2)]
    places = [round(number * 50_000 / unit) for number, unit in pairs[:8]]
    light = [round(number * 10_000 / unit) for number, unit in pairs[8:]]
    return Mastering(
        tuple(places[:6]) if words[20] else None,
        (places[6], places[7]) if words[20] else None,
        (light[0], light[1]) if words[21] else None,
    )


def to_restorable(rgb: Tensor, transfer: int) -> Tensor:
    """Code values (3,H,W) of ``transfer`` in [0, 1] (linear light: from 0 on, 1 is reference
    white) to the encoding that is restored, in [0, 1]."""
    if transfer == HLG:
        return rgb
    if transfer == PQ:
        return _from_nits(_pq_to_nits(rgb), rgb)
    nits = (rgb * WHITE_NITS).clamp(0, _PEAK_NITS)
    return _from_nits(nits, _nits_to_pq(nits))


def from_restorable(rgb: Tensor, transfer: int) -> Tensor:
    """The inverse of :func:`to_restorable`."""
    if transfer == HLG:
        return rgb
    nits, pq = _to_nits_or_pq(rgb)
    dark = rgb <= _WHITE_CODE
    if transfer == PQ:
        return torch.where(dark, _nits_to_pq(nits), pq).clamp(0, 1)
    return torch.where(dark, nits, _pq_to_nits(pq)) / WHITE_NITS


def to_sdr(rgb: Tensor, transfer: int, bt2020: bool, peak: float) -> Tensor:
    """Code values (3,H,W) of ``transfer`` as BT.709 SDR in [0, 1], by tone mapping.

    Reference white ends up near the top, highlights up to ``peak`` cd/m2 roll off above it; hues
    are kept, since all three channels are scaled alike. PQ and HLG only; linear light is clipped
    at its white, as viewers of such pictures do.
    """
    if transfer == LINEAR:
        return _srgb(rgb.clamp(0, 1))
    nits = _pq_to_nits(rgb) if transfer == PQ else _hlg_to_nits(rgb)
    light = nits / WHITE_NITS
    if bt2020:
        light = torch.einsum("ij,jhw->ihw", _BT2020_TO_BT709.to(light), light).clamp(min=0)
    brightest = light.amax(0).clamp(min=1e-6)
    light = light * (_roll_off(brightest, max(peak / WHITE_NITS, 1.0)) / brightest)
    return light.clamp(0, 1) ** (1 / _GAMMA)


def linear_from_srgb(rgb: Tensor) -> Tensor:
    """IEC 61966-2-1."""
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _srgb(light: Tensor) -> Tensor:
    return torch.where(
        light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=1e-9) ** (1 / 2.4) - 0.055
    )


def _roll_off(light: Tensor, peak: float) -> Tensor:
    """Light relative to white: nearly as it is up to 0.5, then a shoulder that meets 1 at peak."""
    knee = 0.5
    if peak <= 1:
        return light.clamp(max=1)
    room, reach = 1 - knee, peak - knee
    above = (light - knee).clamp(min=0)
    # a hyperbola with slope 1 at the knee and height ``room`` at ``reach``
    bend = room * reach / (reach - room)
    return torch.where(light > knee, knee + above * bend / (above + bend), light)


def _from_nits(nits: Tensor, pq: Tensor) -> Tensor:
    dark = _WHITE_CODE * (nits / WHITE_NITS) ** (1 / _GAMMA)
    white = _white_pq()
    bright = _WHITE_CODE + (1 - _WHITE_CODE) * (pq - white) / (1 - white)
    return torch.where(nits <= WHITE_NITS, dark, bright).clamp(0, 1)


def _to_nits_or_pq(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Light as in the lower part of the encoding, and PQ as in the upper part."""
    rgb = rgb.clamp(0, 1)
    nits = WHITE_NITS * (rgb / _WHITE_CODE).clamp(max=1) ** _GAMMA
    white = _white_pq()
    pq = white + (1 - white) * ((rgb - _WHITE_CODE) / (1 - _WHITE_CODE)).clamp(min=0)
    return nits, pq


def _white_pq() -> float:
    return float(_nits_to_pq(torch.tensor(WHITE_NITS, dtype=torch.float64)))


def _pq_to_nits(code: Tensor) -> Tensor:
    power = code.clamp(0, 1).double() ** (1 / _M2)
    light = ((power - _C1).clamp(min=0) / (_C2 - _C3 * power)) ** (1 / _M1)
    return (light * _PEAK_NITS).to(code.dtype)


def _nits_to_pq(nits: Tensor) -> Tensor:
    power = (nits.double() / _PEAK_NITS).clamp(0, 1) ** _M1
    return (((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2).to(nits.dtype)


def _hlg_to_nits(code: Tensor) -> Tensor:
    """BT.2100: the inverse OETF, then the OOTF of a display of 1000 cd/m2."""
    scene = torch.where(code <= 0.5, code**2 / 3, (((code - _HLG_C) / _HLG_A).exp() + _HLG_B) / 12)
    luma = torch.einsum("i,ihw->hw", _LUMA_2020.to(scene), scene)
    return _DISPLAY_NITS * scene * luma.clamp(min=1e-6) ** 0.2
