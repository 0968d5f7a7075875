"""A CUDA device that needs no GPU, on which the real code of training, evaluation and explanations runs.

Its tensors state that they are on cuda:0 and keep their numbers in the memory of the CPU. The code thus takes its
branches for CUDA and computes real values, while mistakes that only show on a GPU raise the errors of rules.py, and
.numpy() of a tensor on the device raises TypeError.

Why not torch's FakeTensorMode? It knows no values, so metrics, checkpoints and figures would need substitutes, and
without a GPU torch refuses its backward pass. Autograd manages streams for tensors of CUDA and asks the driver for
them, so two things differ from CUDA here: gradients on their way through a backward pass are on "meta" for C++ (but on
cuda:0 for Python), and a third kind of device is registered as the accelerator, from then on in the whole process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
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

from tests.cuda.rules import aten, check_devices, check_kept, check_step

CUDA = torch.device("cuda", 0)
NAME = "Rehearsal"
BYTES = 2**34
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}
# Between others, for example those of a validation or of a checkpoint, code may wait for the device.
STEP_HOOKS = {
    *(f"on_{kind}_batch_{end}" for kind in ("train", "validation", "test") for end in ("start", "end")),
    *("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step", "optimizer_step"),
    *("configure_gradient_clipping", "optimizer_zero_grad", "lr_scheduler_step"),
    *("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"),
}
FLAGS: tuple[tuple[Callable[[], bool], Callable[[bool], None]], ...] = (
    # torch.tensor(..., device="cuda") copies a tensor of the CPU, which a mode sees.
    (torch._C._only_lift_cpu_tensors, torch._C._set_only_lift_cpu_tensors),
    # A parameter that is moved is replaced, because its class changes.
    (
        torch.__future__.get_overwrite_module_params_on_conversion,
        torch.__future__.set_overwrite_module_params_on_conversion,
    ),
    # Attention multiplies in the dtype of its input, as the other kernels of CUDA do.
    (
        torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed,
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp,
    ),
)


class CudaTensor(Tensor):
    """A tensor that states to be on cuda:0; `stored` holds its numbers on the CPU."""

    gpu: ClassVar[FakeGPU]
    stored: Tensor

    # The default would make tensors of this class from tensors of the CPU.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, stored: Tensor, is_gradient: bool = False) -> CudaTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            stored.size(),
            strides=stored.stride(),
            storage_offset=stored.storage_offset(),
            dtype=stored.dtype,
            device=torch.device("meta") if is_gradient or cls.gpu.passes_gradients else CUDA,
        )
        assert isinstance(made, CudaTensor)
        made.stored = stored
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
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
        return self.stored.__reduce_ex__(protocol)  # type: ignore[no-untyped-call] # checkpoints are loaded to the CPU


class _Mode(TorchDispatchMode):
    """Sees the operations that create tensors of the device, which have none as an argument."""

    def __init__(self, gpu: FakeGPU) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
    starts_backward: bool = False

    @property
    def passes_gradients(self) -> bool:
        """Whether a new tensor is a gradient on its way; recomputed activations need gradients of their own."""
        return self.starts_backward or (torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled())

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation of tensors that may be on the device; return its result, on the device if it would be."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = {id(tensor.stored): tensor for tensor in tensors if isinstance(tensor, CudaTensor)}
        target = torch.device(kwargs.get("device") or (CUDA if ours else "cpu")).type
        if target == "meta" and (ours or self.passes_gradients):
            target = "cuda"
        if func.overloadpacket is aten.copy_:
            target = args[0].device.type
        if not ours and target != "cuda":
            return func(*args, **kwargs)
        check_devices(func, args, tensors)
        if self.in_step:
            check_step(func, args, kwargs, tensors, target=target, dtype=self.dtype)
        if func is aten._fused_sdp_choice.default:
            return SDPBackend.MATH.value  # the other kernels of CUDA do not run on the CPU
        args, kwargs = tree_map_only(CudaTensor, lambda tensor: tensor.stored, (args, kwargs))
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        # Autograd copies the first gradient to the device before the backward pass.
        is_gradient = func.overloadpacket is aten._to_copy and any(tensor.is_meta for tensor in ours.values())

        def wrapped(tensor: Tensor) -> Tensor:  # an operation in place returns the tensor that it was given
            return ours[id(tensor)] if id(tensor) in ours else CudaTensor(tensor, is_gradient)

        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():  # in which a view of a normal tensor must be a normal tensor
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.no_grad())
            result = func(*args, **kwargs)
            return tree_map_only(Tensor, wrapped, result) if target == "cuda" else result

    def synchronize(self, device: Any = None) -> None:
        self.synchronized.append(self.steps)

    def first_gradients(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function of torch that creates the first gradients of a backward pass: they are on the device."""

        def create(*args: Any, **kwargs: Any) -> Any:
            torch._C._set_multithreading_enabled(False)  # autograd has no thread for the device
            self.starts_backward = True
            try:
                return original(*args, **kwargs)
            finally:
                self.starts_backward = False

        return create

    def hooks(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of Lightning that calls hooks, with the limits of steps watched.

        Not watched are the first batch of an epoch, in which an optimizer may create its state and a figure may keep
        images, and what follows a step that is logged.
        """
        of_callbacks = original.__name__ == "_call_callback_hooks"  # before those of the module

        def call_hooks(trainer: Trainer, name: str, *args: Any, **kwargs: Any) -> Any:
            if name not in STEP_HOOKS:
                self.in_step = False
            if of_callbacks and name.endswith("_batch_start"):
                self.in_step, self.dtype = name != "on_train_batch_start" or args[1] > 0, DTYPES[str(trainer.precision)]
            if of_callbacks and name == "on_train_batch_end":
                check_kept(trainer, args[0]["loss"])
                every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
                self.in_step &= not trainer.is_last_batch and trainer.global_step % every > 0
            result = original(trainer, name, *args, **kwargs)
            self.steps += name == "on_train_batch_end" and not of_callbacks
            return result

        return call_hooks


class _NoModule(backend_registration._DummyBackendModule):
    def is_available(self) -> bool:
        return False


@cache
def _register_accelerator() -> None:
    """Register an accelerator, which torch prefers to CUDA; it is not available."""
    torch.utils.rename_privateuse1_backend("rehearsal")
    torch._register_device_module("rehearsal", _NoModule())  # type: ignore[arg-type]
    torch._C._acc.register_python_privateuseone_hook(backend_registration._DummyPrivateUse1Hook())
    torch._C._acc.register_python_privateuseone_device_guard(backend_registration._DummyDeviceGuard())


def _grouped(lists: list[list[Any]], with_indices: bool = False) -> dict[Any, Any]:
    """Group tensors by device and dtype as torch does in C++, where gradients are on "meta"."""
    groups: dict[Any, Any] = {}
    for index, first in enumerate(lists[0]):
        tensors, indices = groups.setdefault((first.device, first.dtype), ([[] for _ in lists], []))
        for each, given in zip(tensors, lists, strict=True):
            each.extend(given[index : index + 1])
        indices.append(index)
    return {key: (tensors, indices if with_indices else []) for key, (tensors, indices) in groups.items()}


@contextmanager
def fake_gpu() -> Iterator[FakeGPU]:
    """Present one CUDA device to torch and Lightning. Skips the test if there is a real one."""
    if torch.cuda.is_available():
        pytest.skip("a real GPU would lose its backward pass to the accelerator that is registered here")
    gpu = CudaTensor.gpu = FakeGPU()
    properties = SimpleNamespace(name=NAME, major=9, minor=0, total_memory=BYTES)
    _register_accelerator()
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, result in {
            "is_available": True,  # also asked by autocast and GradScaler
            "is_bf16_supported": True,
            "device_count": 1,
            "current_device": 0,
            "get_device_name": NAME,
            "get_device_capability": (9, 0),
            "get_device_properties": properties,
            "mem_get_info": (BYTES, BYTES),
            "memory_reserved": 0,
            "set_device": None,
            "manual_seed_all": None,
            "empty_cache": None,
            "_lazy_init": None,
        }.items():
            patch.setattr(torch.cuda, name, lambda *_, result=result, **__: result)
        patch.setattr(torch.cuda, "synchronize", gpu.synchronize)
        patch.setattr(torch.cuda, "default_generators", (torch.default_generator,))  # numbers are drawn on the CPU
        patch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
        patch.setattr(torch.backends.cudnn, "enabled", False)  # its operations exist on CUDA only
        patch.setattr(torch.autograd, "_make_grads", gpu.first_gradients(torch.autograd._make_grads))
        patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", _grouped)
        for module in (_foreach_utils, optimizer):  # so that fused and foreach optimizers run, as on CUDA
            patch.setattr(module, "_foreach_supported_types", [*module._foreach_supported_types, CudaTensor])
        for name in ("_call_callback_hooks", "_call_lightning_module_hook"):
            patch.setattr(call, name, gpu.hooks(getattr(call, name)))
        for getter, setter in FLAGS:
            stack.callback(setter, getter())
            setter(True)
        torch._C._ensureCUDADeviceGuardSet()  # for autograd, as FakeTensorMode does
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))  # restored, see first_gradients
        stack.enter_context(_Mode(gpu))
        yield gpu
