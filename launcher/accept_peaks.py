"""The published peaks of some GPUs: dense products, without sparsity, and memory bandwidth.

From the makers' data sheets: AMD Instinct MI200, MI300X, MI325X and MI350 series; NVIDIA A100,
H100, H200 and L40S. They assume the highest clock, which a product at full power doesn't hold, so
no card reaches 100 %.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """The peak of one device as torch counts it: an MI250 is two devices.

    Attributes:
        fp32: TFLOP/s.
        tf32: TFLOP/s; 0 if the device has no such unit.
        half: TFLOP/s in bf16 and fp16.
        memory: GB/s.
    """

    fp32: float
    tf32: float
    half: float
    memory: float


# The first name that a device's name contains counts.
PEAKS = (
    ("MI355X", Peak(157.3, 0, 2516.6, 8000)),
    ("MI350X", Peak(144.2, 0, 2306.9, 8000)),
    ("MI325X", Peak(163.4, 653.7, 1307.4, 6000)),
    ("MI300X", Peak(163.4, 653.7, 1307.4, 5300)),
    ("MI250X", Peak(47.9, 0, 191.5, 1638.4)),
    ("MI250", Peak(45.3, 0, 181.0, 1638.4)),
    ("MI210", Peak(45.3, 0, 181.0, 1638.4)),
    ("H200", Peak(67, 494.7, 989.4, 4800)),
    ("H100 PCIe", Peak(51.2, 378, 756, 2000)),
    ("H100 80GB HBM3", Peak(67, 494.7, 989.4, 3350)),
    ("A100-SXM4-80GB", Peak(19.5, 156, 312, 2039)),
    ("A100 80GB PCIe", Peak(19.5, 156, 312, 1935)),
    ("A100-SXM4-40GB", Peak(19.5, 156, 312, 1555)),
    ("A100-PCIE-40GB", Peak(19.5, 156, 312, 1555)),
    ("L40S", Peak(91.6, 183, 362, 864)),
)


def find(*names: str) -> Peak | None:
    """Return the peak of the device with one of these names, or None."""
    for part, peak in PEAKS:
        if any(part.lower() in name.lower() for name in names):
            return peak
    return None


def rate(peak: Peak, measurement: str) -> float:
    """Return the peak for a measurement, in GFLOP/s or GB/s; 0 if it is unknown."""
    if measurement.startswith("memory "):
        return peak.memory
    kinds = {"fp32": peak.fp32, "tf32": peak.tf32, "bf16": peak.half, "fp16": peak.half}
    _, _, kind = measurement.partition("matrix product, ")
    return 1000 * kinds.get(kind, 0)
