"""A CUDA device that needs no GPU, on which the real code of training, evaluation and explanations runs.

Its tensors state that they are on cuda:0 and hold their numbers in the memory of the CPU. The code thus takes its
branches for CUDA and computes real values, and mistakes that only show on a GPU raise here:

* `MixedDevices`, where tensors of the CPU and of the device meet. The rules are those of CUDA: an operation on single
  elements accepts a CPU tensor without dimensions, and indexing accepts indices on the CPU.
* `ReadBack`, where a step of training, validation or test waits for the device: .item(), .cpu(), shapes that
  depend on data, and copies from the CPU that are not asynchronous.
* `WrongDtype`, where a step multiplies in another dtype than that of autocast, or where the loss, a parameter or the
  state of the optimizer is not float32.
* TypeError by torch itself for .numpy() of a tensor on the device.

Unlike torch's FakeTensorMode it knows values, so metrics, checkpoints and figures need no substitutes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from types import FrameType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.trainer import call
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.optim import optimizer
from torch.utils import _foreach_utils, backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)

# Code that may wait for the device in a step.
ALLOWED_READS = {
    "torch/amp/grad_scaler.py": "float16: whether gradients are finite decides whether a step is taken",
    "vitexp/training/checkpoints.py": "a checkpoint between two steps copies all weights",
}
# Code that may multiply in another dtype than autocast.
ALLOWED_DTYPES = {
    "vitexp/data/augment/": "augmentation computes in float32",
    "vitexp/training/muon.py": "Muon orthogonalizes in bfloat16",
}
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}
STEP_HOOKS = {
    *(f"on_{kind}_batch_{end}" for kind in ("train", "validation", "test") for end in ("start", "end")),
    *("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step", "optimizer_step"),
    *("configure_gradient_clipping", "optimizer_zero_grad", "lr_scheduler_step"),
    *("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"),
}
_make_grads = torch.autograd._make_grads

PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution, aten.convolution_backward}
# Not tagged as pointwise, but these also take a CPU tensor without dimensions.
TAKES_CPU_SCALARS = {aten.fill_, aten.masked_fill_, aten.masked_fill}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class MixedDevices(RuntimeError):
    """An operation got tensors of the CPU and of the device."""


class ReadBack(RuntimeError):
    """A step waited for the device."""


class WrongDtype(RuntimeError):
    """A step computed or kept something in a dtype that mixed precision does not intend."""


class CudaTensor(Tensor):
    """A tensor that states to be on cuda:0; `values` holds its numbers on the CPU."""

    gpu: ClassVar[FakeGPU]
    values: Tensor

    # The default would make tensors of this class from tensors of the CPU.
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor, is_gradient: bool = False) -> CudaTensor:
        made: CudaTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device="meta" if is_gradient or cls.gpu.is_backward() else CUDA,
        )
        made.values = values
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return cls.gpu.run(func, args, kwargs or {})

    # torch's own refuse subclasses.

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {CUDA} device type tensor to numpy. Use Tensor.cpu() to copy it first.")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __format__(self, spec: str) -> str:
        return format(self.cpu(), spec)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.values.__reduce_ex__(protocol)  # checkpoints are loaded to the CPU


class _Module(backend_registration._DummyBackendModule):
    def is_available(self) -> bool:
        return False


class _Device(TorchDispatchMode):
    """Sees the operations that create tensors of the device."""

    def __init__(self, gpu: FakeGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled() and func._can_decompose():
            with self:  # without autograd, torch passes compound operations on as they are
                return func.decompose(*args, **kwargs or {})
        return self.gpu.run(func, args, kwargs or {})


@dataclass
class FakeGPU:
    """What happened on the device so far, and whether it is in a step that must not wait for it."""

    steps: int = 0  # batches of training that have ended
    synchronized: list[int] = field(default_factory=list)  # the value of `steps` at each torch.cuda.synchronize
    in_step: bool = False
    dtype: torch.dtype = torch.float32  # of products in a step

    making_grads: bool = False

    def is_backward(self) -> bool:
        """Return whether a new tensor is a gradient that autograd passes on."""
        return self.making_grads or (torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled())

    def make_grads(self, *args: Any, **kwargs: Any) -> Any:
        """Create the gradients from which a backward pass starts."""
        torch._C._set_multithreading_enabled(False)  # there is no thread of the device
        self.making_grads = True
        try:
            return _make_grads(*args, **kwargs)
        finally:
            self.making_grads = False

    def synchronize(self, device: Any = None) -> None:
        self.synchronized.append(self.steps)

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation of tensors that may be on the device; return its result, on the device if it would be."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = {id(tensor.values): tensor for tensor in tensors if isinstance(tensor, CudaTensor)}
        target = kwargs.get("device")
        kinds = ("cuda", "meta") if ours or self.is_backward() else ("cuda",)  # for autograd, gradients are on "meta"
        on_device = bool(ours) if target is None else torch.device(target).type in kinds
        if not ours and not on_device:
            return func(*args, **kwargs)
        copies = func.overloadpacket in (aten._to_copy, aten.copy_)
        if not copies:
            _check_devices(func, args, tensors)
        if self.in_step:
            self._check_step(func, args, kwargs, tensors, on_device)
        if func is aten._fused_sdp_choice.default:
            return SDPBackend.MATH.value  # the other kernels of CUDA do not run on the CPU
        if func.overloadpacket is aten.copy_ and not isinstance(args[0], CudaTensor):
            on_device = False
        args, kwargs = tree_map_only(CudaTensor, lambda tensor: tensor.values, (args, kwargs))
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        if on_device and target is not None:
            kwargs["device"] = "cpu"
        # Autograd copies the first gradient to the device before the backward pass.
        is_gradient = copies and any(tensor.is_meta for tensor in ours.values())

        def wrapped(tensor: Tensor) -> Tensor:  # an operation in place returns the tensor that it was given
            return ours[id(tensor)] if id(tensor) in ours else CudaTensor(tensor, is_gradient)

        # A view of a normal tensor is a normal tensor in inference mode too.
        with _normal_mode() if torch.is_inference_mode_enabled() else nullcontext():
            result = func(*args, **kwargs)
            return tree_map_only(Tensor, wrapped, result) if on_device else result

    def _check_step(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor], on_device: bool) -> None:
        """Raise ReadBack or WrongDtype if a step may not do this."""
        packet, tags = func.overloadpacket, func.tags
        if packet in INDEXING:
            reads = any(index is not None and (index.dtype in (torch.bool, torch.uint8)) for index in args[1])
            reads |= any(index is not None and not index.is_cuda for index in args[1])
        elif packet in (aten._to_copy, aten.copy_):
            devices = {tensor.device.type for tensor in tensors} | {"cuda" if on_device else "cpu"}
            blocks = not kwargs.get("non_blocking", len(args) > 2 and args[2])
            reads = len(devices) > 1 and blocks
        else:
            reads = torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags
        if reads and not _comes_from(ALLOWED_READS):
            raise ReadBack(f"{func} in a step waits for the device")
        if packet in PRODUCTS and not _comes_from(ALLOWED_DTYPES):
            dtypes = {tensor.dtype for tensor in tensors}
            if dtypes != {self.dtype}:
                raise WrongDtype(f"{func} in a step got {dtypes}, not {self.dtype}")

    def hook(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of Lightning that calls hooks, with the limits of steps watched."""

        def call_hooks(trainer: Trainer, name: str, *args: Any, **kwargs: Any) -> Any:
            if name not in STEP_HOOKS:
                self.in_step = False
            of_callbacks = original.__name__ == "_call_callback_hooks"
            if of_callbacks and name.endswith("_batch_start"):
                # The first step of an epoch may create the state of the optimizer and keep images for a figure.
                self.in_step = name != "on_train_batch_start" or args[1] > 0
                self.dtype = DTYPES[str(trainer.precision)]
            if of_callbacks and name == "on_train_batch_end":
                _check_kept(trainer, args[0]["loss"])
                if trainer.is_last_batch or trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
                    self.in_step = False  # what is logged is read
            result = original(trainer, name, *args, **kwargs)
            self.steps += name == "on_train_batch_end" and not of_callbacks
            return result

        return call_hooks


def _check_devices(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raise MixedDevices for tensors of CPU and device that no kernel of CUDA takes together."""
    on_cpu = [tensor for tensor in tensors if not isinstance(tensor, CudaTensor)]
    if not on_cpu or len(on_cpu) == len(tensors):
        return
    packet = func.overloadpacket
    if packet in INDEXING and isinstance(args[0], CudaTensor):
        on_cpu = [tensor for tensor in on_cpu if not any(tensor is index for index in args[1])]
    takes_scalars = torch.Tag.pointwise in func.tags or packet in TAKES_CPU_SCALARS
    written = func._schema.is_mutable and not isinstance(args[0], CudaTensor)
    if written or any(tensor.ndim for tensor in on_cpu) or (on_cpu and not takes_scalars):
        raise MixedDevices(f"{func} got tensors of the CPU and of the device")


def _check_kept(trainer: Trainer, loss: Tensor) -> None:
    """Raise WrongDtype or MixedDevices if the loss or what training keeps is not float32 or not on the device."""
    kept = {f"the parameter {name}": parameter for name, parameter in trainer.lightning_module.named_parameters()}
    for number, state in enumerate(trainer.optimizers[0].state.values()):
        kept |= {f"{key} of state {number}": value for key, value in state.items() if isinstance(value, Tensor)}
    for name, tensor in {"the loss": loss, **kept}.items():
        if tensor.dtype != torch.float32:
            raise WrongDtype(f"{name} is {tensor.dtype}")
        if not tensor.is_cuda and tensor.ndim:
            raise MixedDevices(f"{name} is on the CPU")


def _comes_from(files: Mapping[str, str]) -> bool:
    """Return whether one of these files is being executed."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if any(file in frame.f_code.co_filename for file in files):
            return True
        frame = frame.f_back
    return False


@contextmanager
def _normal_mode() -> Iterator[None]:
    with torch.inference_mode(False), torch.no_grad():
        yield


@cache
def _register_accelerator() -> None:
    """Give autograd an accelerator other than CUDA, whose driver it would ask for streams."""
    torch.utils.rename_privateuse1_backend("rehearsal")
    torch._register_device_module("rehearsal", _Module())
    torch._C._acc.register_python_privateuseone_hook(backend_registration._DummyPrivateUse1Hook())
    torch._C._acc.register_python_privateuseone_device_guard(backend_registration._DummyDeviceGuard())


def _grouped(lists: list[list[Any]], with_indices: bool = False) -> dict[Any, Any]:
    """Group tensors as torch does in C++, which does not know the device of gradients."""
    groups: dict[Any, Any] = {}
    for index, first in enumerate(lists[0]):
        tensors, indices = groups.setdefault((first.device, first.dtype), ([[] for _ in lists], []))
        for each, values in zip(tensors, lists, strict=True):
            each.extend(values[index : index + 1])
        indices.append(index)
    return {key: (tensors, indices if with_indices else []) for key, (tensors, indices) in groups.items()}


@contextmanager
def fake_gpu() -> Iterator[FakeGPU]:
    """Present one CUDA device to torch and Lightning."""
    gpu = FakeGPU()
    CudaTensor.gpu = gpu
    properties = SimpleNamespace(name="Rehearsal", major=9, minor=0, total_memory=2**34, multi_processor_count=132)
    in_half = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch:
        for name, result in {
            "is_available": True,  # also tells autocast and GradScaler that they are on
            "device_count": 1,
            "current_device": 0,
            "get_device_name": properties.name,
            "get_device_capability": (9, 0),
            "get_device_properties": properties,
            "mem_get_info": (2**34, 2**34),
            "memory_reserved": 0,
            "set_device": None,
            "manual_seed_all": None,
            "empty_cache": None,
            "_lazy_init": None,
        }.items():
            patch.setattr(torch.cuda, name, lambda *_, result=result, **__: result)
        patch.setattr(torch.cuda, "synchronize", gpu.synchronize)
        patch.setattr(torch.cuda, "default_generators", (torch.default_generator,))  # values are drawn on the CPU
        patch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
        patch.setattr(torch.autograd, "_make_grads", gpu.make_grads)
        patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", _grouped)
        for module in (_foreach_utils, optimizer):  # as for tensors of CUDA
            patch.setattr(module, "_foreach_supported_types", [*module._foreach_supported_types, CudaTensor])
        patch.setattr(torch.backends.cudnn, "enabled", False)  # its operations exist on CUDA only
        patch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)
        for name in ("_call_callback_hooks", "_call_lightning_module_hook"):
            patch.setattr(call, name, gpu.hook(getattr(call, name)))
        _register_accelerator()
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # as the other kernels do
        # As FakeTensorMode does: for autograd, and so that torch.tensor(..., device="cuda") is a copy that modes see.
        torch._C._ensureCUDADeviceGuardSet()
        only_lift = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # a moved parameter changes its class
        try:
            with _Device(gpu), torch.autograd.set_multithreading_enabled(False):
                yield gpu
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
            torch._C._set_only_lift_cpu_tensors(only_lift)
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(in_half)
