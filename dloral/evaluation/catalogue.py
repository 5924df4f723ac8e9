"""All measures by name: their specs, and how to prepare them for a clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from dloral.errors import PYTHON, DLoRALError, Face, OptionError, Setting
from dloral.evaluation.measures import Measure, MetricSpec

SSIM_TEXT = "Gaussian window 11x11, sigma 1.5, K 0.01 and 0.03, where the window fits, on "
PSNR_TEXT = "10 log10(1 / mean squared error) over all pixels of "
LUMA = "BT.601 studio-range luma"
WANG = "Wang et al., IEEE TIP 13(4), 2004"
TORCHMETRICS = "through torchmetrics, RGB, no crop"
PYIQA = "through pyiqa (PolyForm Noncommercial licence), RGB, no crop"

METRIC_SPECS = {
    spec.name: spec
    for spec in (
        MetricSpec(
            "psnr", "PSNR", "dB", "0 to 100 (equal)", "higher", "reference",
            PSNR_TEXT + "R, G and B; mean over frames", "ISO/IEC 29170-2:2015", digits=2,
        ),
        MetricSpec(
            "psnr_y", "PSNR-Y", "dB", "0 to 100 (equal)", "higher", "reference",
            PSNR_TEXT + LUMA + "; mean over frames", "ISO/IEC 29170-2:2015", digits=2,
        ),
        MetricSpec(
            "ssim", "SSIM", "", "-1 to 1 (equal)", "higher", "reference",
            SSIM_TEXT + "R, G and B", WANG,
        ),
        MetricSpec(
            "ssim_y", "SSIM-Y", "", "-1 to 1 (equal)", "higher", "reference",
            SSIM_TEXT + LUMA, WANG,
        ),
        MetricSpec(
            "lpips_like", "LPIPS-like", "", "0 (equal) to about 1", "lower", "reference",
            "LPIPS's formula and heads on another VGG trunk; not comparable with published LPIPS; "
            "RGB, no crop",
            "formula: Zhang et al., CVPR 2018; trunk: HED",
            slow=True,
        ),
        MetricSpec(
            "lpips", "LPIPS", "", "0 (equal) to about 1", "lower", "reference",
            f"AlexNet, version 0.1, {TORCHMETRICS}", "Zhang et al., CVPR 2018", slow=True,
        ),
        MetricSpec(
            "dists", "DISTS", "", "0 (equal) to about 1", "lower", "reference",
            f"VGG16, {TORCHMETRICS}", "Ding et al., IEEE TPAMI 44(5), 2022", slow=True,
        ),
        MetricSpec(
            "sharpness", "Sharpness", "", "from 0; 1: as the truth", "near 1", "reference",
            "mean absolute difference of horizontal plus of vertical neighbours, RGB in [0, 1], "
            "over the ground truth's; noise raises it too, so read it beside the warping error",
            "our decision; dloral/evaluation/fidelity.py", digits=3,
        ),
        MetricSpec(
            "vmaf", "VMAF", "", "0 to 100", "higher", "reference",
            "model vmaf_v0.6.1 on luma of 8 bits (10 where a clip has more), frames paired by "
            "number, no crop",
            "Netflix VMAF, through FFmpeg's libvmaf", digits=2,
        ),
        MetricSpec(
            "niqe", "NIQE", "", "0 to about 100", "lower", "alone",
            f"blocks of 96x96 of {LUMA}, rounded, two scales, no crop",
            "Mittal et al., IEEE SPL 20(3), 2013",
            digits=2, slow=True,
        ),
        MetricSpec(
            "musiq", "MUSIQ", "", "0 to 100", "higher", "alone",
            f"weights of KonIQ-10k, {PYIQA}", "Ke et al., ICCV 2021", digits=2, slow=True,
        ),
        MetricSpec(
            "clipiqa", "CLIP-IQA", "", "0 to 1", "higher", "alone",
            PYIQA, "Wang et al., AAAI 2023", slow=True,
        ),
        MetricSpec(
            "maniqa", "MANIQA", "", "0 to 1", "higher", "alone",
            f"weights of KonIQ-10k, {PYIQA}", "Yang et al., CVPRW 2022", slow=True,
        ),
        MetricSpec(
            "warping_error", "E*warp", "x 1e-3", "0 to 1000", "lower", "guide",
            "mean squared difference of each frame and the one before it along the motion, "
            "unmasked pixels, RGB in [0, 1]",
            "after Lai et al., ECCV 2018; dloral/evaluation/steadiness.py", digits=3,
            by_ratio=True,
        ),
        MetricSpec(
            "flicker", "Flicker", "grey levels", "0 to 255", "lower", "guide",
            "mean jump of luma of 16x16 cells along the motion, less the ground truth's",
            "our decision; dloral/evaluation/steadiness.py", digits=3,
        ),
        *(
            MetricSpec(
                f"grid_{period}", f"Grid {period}", "dB", "about 0 without a grid", "lower",
                "guide",
                f"power at a period of {period} pixels over its neighbourhood in the spectrum "
                "of 8-bit pictures, less the ground truth's",
                "our decision; dloral/evaluation/grid.py", digits=2,
            )
            for period in (2, 4, 8)
        ),
        MetricSpec(
            "grid_level", "Grid level", "grey levels", "0 to 255", "lower", "alone",
            "root mean square of what stands out at periods of 2, 4 and 8 pixels",
            "our decision; dloral/evaluation/grid.py", digits=3,
        ),
    )
}  # fmt: skip

TEMPORAL = ("warping_error", "flicker")
"""Measures that compare each frame with the one before: a single frame has none of them."""

GROUPS = {
    "fast": ("psnr", "ssim", "warping_error", "flicker"),
    "grid": ("grid_2", "grid_4", "grid_8", "grid_level"),
    "offline": (
        *("psnr", "psnr_y", "ssim", "ssim_y", "lpips_like", "sharpness", "vmaf", "niqe"),
        *("warping_error", "flicker", "grid_2", "grid_4", "grid_8", "grid_level"),
    ),
    "benchmark": (
        *("psnr", "ssim", "lpips_like", "sharpness", "niqe", "warping_error", "flicker"),
        *("grid_2", "grid_4", "grid_8", "grid_level"),
    ),
    "paper": ("musiq", "clipiqa", "maniqa", "warping_error"),
    "all": tuple(METRIC_SPECS),
}
"""Names that stand for several measures."""

DEFAULT = "fast"
FLOWS = ("dis", "raft")
MOTIONS = ("guide", "restored")


@dataclass(frozen=True)
class Protocol:
    """How a benchmark measures by default; ``about`` says whose protocol it is."""

    metrics: tuple[str, ...]
    flow: str
    motion: str
    about: str


PROTOCOLS = {
    "dloral": Protocol(("benchmark",), "dis", "guide", "this project's"),
    "dove": Protocol(
        ("psnr_y", "ssim_y", "lpips", "dists", "clipiqa", "warping_error"),
        "raft",
        "restored",
        "DOVE's (Chen et al., 2025): PSNR and SSIM on luma, E*warp along RAFT's motion of the "
        "results alone",
    ),
}

ON_FILES = ("vmaf",)
"""Measured by another program on the files, not frame by frame here."""


@dataclass(frozen=True)
class Settings:
    """How clips are measured; validated on construction.

    ``every``: slow measures see one in this many frames. ``crop``: pixels of each border that PSNR
    and SSIM leave out. ``flow``: "dis", or "raft" with ``flow_weights``. ``motion``: which clip it
    is estimated on, "guide" (the ground truth, else the input, else the result) or "restored"
    (always the result). Raises :class:`OptionError`.
    """

    metrics: tuple[str, ...] = GROUPS[DEFAULT]
    every: int = 1
    crop: int = 0
    flow: str = "dis"
    flow_weights: str | None = None
    motion: str = "guide"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("crop", 0)):
            value = getattr(self, name)
            if value < least:
                raise OptionError(
                    "{option} is {value}",
                    remedy=f"give {least} or more",
                    option=Setting(name),
                    value=value,
                )
        for name, choices in (("flow", FLOWS), ("motion", MOTIONS)):
            if getattr(self, name) not in choices:
                raise OptionError(
                    "{option} is {value!r}",
                    remedy=f"choose from {', '.join(choices)}",
                    option=Setting(name),
                    value=getattr(self, name),
                )
        if not self.metrics:
            raise OptionError(
                "{option} names no measure",
                remedy=f"choose from {', '.join(METRIC_SPECS)}",
                option=Setting("metrics"),
            )


def chosen_metrics(names: Iterable[str], has_reference: bool) -> tuple[str, ...]:
    """Names, with groups expanded, in the catalogue's order, each once.

    Without a reference, a group means those of its measures that need none, and the name of one
    that needs it is an :class:`OptionError`, as is an unknown name.
    """
    wanted: set[str] = set()
    for name in names:
        if name in GROUPS:
            wanted |= {
                part
                for part in GROUPS[name]
                if has_reference or METRIC_SPECS[part].scope != "reference"
            }
        elif name not in METRIC_SPECS:
            raise OptionError(
                "there is no measure {value!r}",
                remedy=f"choose from {', '.join(METRIC_SPECS)}, or a group: {', '.join(GROUPS)}",
                option=Setting("metrics"),
                value=name,
            )
        elif METRIC_SPECS[name].scope == "reference" and not has_reference:
            raise OptionError(
                "{value} compares with the ground truth",
                remedy="give {reference}, or leave it out",
                value=name,
                reference=Setting("reference"),
            )
        else:
            wanted.add(name)
    return tuple(name for name in METRIC_SPECS if name in wanted)


class MetricSuite:
    """Measures that are ready, and why the others are not, as ``face`` words it.

    Networks are loaded once; measures that remember frames are created anew for each clip.
    Raises :class:`OptionError` for a device that does not exist.
    """

    def __init__(self, settings: Settings, face: Face = PYTHON) -> None:
        self.settings = settings
        if settings.device not in ("cpu", "auto"):
            _ = self.device  # a device that does not exist is a wrong call, whatever is measured
        self.unavailable: dict[str, str] = {}
        self._kept: dict[str, Measure] = {}
        for name in settings.metrics:
            try:
                self._prepare(name)
            except DLoRALError as error:
                self.unavailable[name] = error.render(face)

    @cached_property
    def device(self) -> str:
        """What networks run on; found when the first is loaded, since that imports a lot."""
        if self.settings.device == "cpu":
            return "cpu"
        from dloral.devices import choose_device

        return str(choose_device(self.settings.device))

    @property
    def specs(self) -> tuple[MetricSpec, ...]:
        """The specs of the available measures."""
        return tuple(
            METRIC_SPECS[name] for name in self.settings.metrics if name not in self.unavailable
        )

    def measures(self) -> list[Measure]:
        """The measures for one clip."""
        from dloral.evaluation.fidelity import Fidelity, Sharpness
        from dloral.evaluation.grid import Grid
        from dloral.evaluation.steadiness import Steadiness

        names = [spec.name for spec in self.specs if spec.name not in ON_FILES]
        made: list[Measure] = [
            Fidelity(METRIC_SPECS[name], self.settings.crop)
            for name in names
            if name.startswith(("psnr", "ssim"))
        ]
        made += [Sharpness(METRIC_SPECS[name]) for name in names if name == "sharpness"]
        steady = tuple(METRIC_SPECS[name] for name in names if name in TEMPORAL)
        if steady:
            made.append(Steadiness(steady, self._flow, self.settings.motion == "restored"))
        grid = tuple(METRIC_SPECS[name] for name in names if name.startswith("grid"))
        if grid:
            made.append(Grid(grid))
        return made + [self._kept[name] for name in names if name in self._kept]

    def _prepare(self, name: str) -> None:
        """Load what the measure needs; DLoRALError where it is unavailable."""
        spec = METRIC_SPECS[name]
        if name == "lpips_like":
            from dloral.evaluation.fidelity import LPIPSLikeDistance

            self._kept[name] = LPIPSLikeDistance(spec, self.device)
        elif name == "niqe":
            from dloral.evaluation.niqe import NIQE

            self._kept[name] = NIQE(spec)
        elif name in ("lpips", "dists"):
            from dloral.evaluation.iqa import TorchMetric

            self._kept[name] = TorchMetric(spec, self.device)
        elif name in ("musiq", "clipiqa", "maniqa"):
            from dloral.evaluation.iqa import PyIQA

            self._kept[name] = PyIQA(spec, self.device)
        elif name == "vmaf":
            from dloral.evaluation.vmaf import find_ffmpeg

            find_ffmpeg()
        elif name in TEMPORAL:
            from dloral.evaluation.steadiness import make_flow

            device = self.device if self.settings.flow == "raft" else "cpu"
            self._flow = make_flow(self.settings.flow, self.settings.flow_weights, device)
