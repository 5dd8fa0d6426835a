"""Check the exercises of LLM09 and LLM09+ against PyTorch's modules and layers.

The checks are in module_checks, layer_checks and deeper_checks.
"""

from labs.kit import Checks
from labs.llm09_custom_architectures import deeper_checks, layer_checks, module_checks

checks = Checks()

for _part, _check in {
    "Module.__setattr__": module_checks.module_setattr,
    "Module.named_tensors": module_checks.named_tensors,
    "load_partial": module_checks.load_partial,
    "Convolution.forward": layer_checks.convolution,
    "look_inside": module_checks.look_inside,
    "LoraConvolution.merged": layer_checks.merged,
    "GatedConvolution.forward": layer_checks.gated_convolution,
    "read_safetensors": deeper_checks.read_safetensors,
    "BatchNorm.forward": deeper_checks.batch_norm,
    "WritingConvolution.step": deeper_checks.step,
}.items():
    checks.proves(_part)(_check)
