"""Which names a checkpoint may hold, and what becomes of each.

A name in a pickle is a request to import a module and take something from it. No request is granted: a name has a
constructor of this package, is kept as an inert record, or is the reason to refuse the file.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum

from ckptfmt._core.pth.data.dtypes import STORAGES, TYPES
from ckptfmt._core.pth.names.kinds import CHECKED, ENUMERATIONS, STRUCT_SEQUENCES, kind_of
from ckptfmt._core.pth.names.spellings import canonical
from ckptfmt._core.pth.names.stdlib_names import STANDARD_LIBRARY
from ckptfmt._core.pth.nodes import Global

__all__ = ["CALLABLE", "Judgement", "Verdict", "judge", "judge_call"]


class Verdict(StrEnum):
    """What becomes of a name."""

    KNOWN = "known"
    """It has a constructor here, or it is an element type."""
    INERT = "inert"
    """Of a kind that does nothing (see `pth.names.kinds`), a class of `torch.nn` or `torch.optim`, or of TorchScript
    code: kept as data, and listed."""
    UNKNOWN = "unknown"
    """A name of some other package: kept as a record that does nothing, listed, and refused in strict mode."""
    REFUSED = "refused"
    """No checkpoint needs it."""


@dataclass(frozen=True)
class Judgement:
    """A verdict and its reason, in words that go on after the name."""

    verdict: Verdict
    reason: str


_TORCH_STORAGES = [*STORAGES, "TypedStorage"]
_TORCH_TENSORS = "Double Float Half BFloat16 Long Int Short Char Byte Bool".split()
_TORCH_QSCHEMES = (
    "per_tensor_affine per_tensor_symmetric per_channel_affine per_channel_symmetric per_channel_affine_float_qparams"
).split()
_NUMPY_SCALARS = (
    "bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 longdouble complex64 "
    "complex128 str_ bytes_ void object_ datetime64 timedelta64 intc uintc longlong ulonglong float128 complex256"
).split()
_NUMPY_RANDOM = "_mt19937.MT19937 _pcg64.PCG64 _pcg64.PCG64DXSM _philox.Philox _sfc64.SFC64".split()
_ML_DTYPES = (
    "bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float8_e4m3 float8_e3m4 "
    "float8_e4m3b11fnuz int4 uint4 int2 uint2 float6_e2m3fn float6_e3m2fn float4_e2m1fn"
).split()
_ACTIVATIONS = (
    "relu relu_ relu6 gelu silu mish elu selu celu leaky_relu leaky_relu_ tanh sigmoid softplus softmax log_softmax "
    "hardswish hardtanh hardsigmoid logsigmoid glu prelu rrelu softsign tanhshrink softshrink hardshrink threshold "
    "cross_entropy mse_loss l1_loss nll_loss smooth_l1_loss binary_cross_entropy binary_cross_entropy_with_logits"
).split()


def _under(module: str, names: str | list[str]) -> set[str]:
    return {f"{module}.{name}" for name in (names.split() if isinstance(names, str) else names)}


CALLABLE = frozenset(
    _under("collections", "OrderedDict defaultdict Counter deque")
    | _under("builtins", "set frozenset list tuple dict bytearray bytes complex int float str bool range slice object")
    | _under("copyreg", "_reconstructor")
    | _under("_codecs", "encode")
    | _under("argparse", "Namespace")
    | _under("types", "SimpleNamespace")
    | _under("datetime", "datetime date time timedelta timezone")
    | _under("pathlib", "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath")
    | _under("uuid", "UUID")
    | _under("decimal", "Decimal")
    | _under("fractions", "Fraction")
    | _under("functools", "partial")
    | _under("io", "BytesIO StringIO")
    | _under("logging", "getLogger")
    | _under("re", "_compile")
    | _under("types", "GenericAlias UnionType")
    | _under("collections.abc", "_CallableGenericAlias")
    | _under("zoneinfo", "ZoneInfo._unpickle")
    | ENUMERATIONS
    | STRUCT_SEQUENCES
    | _under("torch", "Size device Tensor Generator")
    | _under("torch.serialization", "_get_layout")
    | _under("torch.torch_version", "TorchVersion")
    | _under("torch.nn.parameter", "Parameter Buffer")
    | _under(
        "torch._utils",
        "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state "
        "_rebuild_qtensor _rebuild_sparse_tensor _rebuild_sparse_csr_tensor _rebuild_device_tensor_from_numpy "
        "_rebuild_device_tensor_from_cpu_tensor _rebuild_xla_tensor _rebuild_meta_tensor_no_storage "
        "_rebuild_nested_tensor _rebuild_wrapper_subclass",
    )
    | _under("torch._tensor", "_rebuild_from_type _rebuild_from_type_v2")
    | _under("torch.jit._pickle", "build_intlist build_tensorlist build_doublelist build_boollist restore_type_tag")
    | _under("torch.nn.backends.thnn", "_get_thnn_function_backend")
    | _under("numpy", "ndarray dtype")
    | _under("numpy._core.multiarray", "_reconstruct scalar")
    | _under("numpy._core.numeric", "_frombuffer")
    | _under("numpy.random", "__RandomState_ctor")
    | _under("numpy.random._pickle", "__randomstate_ctor __generator_ctor __bit_generator_ctor")
    | _under("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence")
    | _under("numpy.ma", "_mareconstruct")
    | _under("numpy._core._internal", "_convert_to_stringdtype_kwargs")
)
"""The names, in their canonical form, that may be called, each with a constructor in `pth.values`."""

_REFERENCES = frozenset(
    _under("torch", _TORCH_STORAGES)
    | _under("torch.cuda", _TORCH_STORAGES)
    | _under("torch.storage", "TypedStorage UntypedStorage _TypedStorage _UntypedStorage")
    | _under("torch", [f"{name}Tensor" for name in _TORCH_TENSORS])
    | _under("torch.cuda", [f"{name}Tensor" for name in _TORCH_TENSORS])
    | _under("torch", [*TYPES])
    | _under("torch", _TORCH_QSCHEMES)
    | _under("torch", "strided sparse_coo sparse_csr sparse_csc sparse_bsr sparse_bsc contiguous_format channels_last")
    | _under("torch", "preserve_format channels_last_3d")
    | _under("torch.nn.functional", _ACTIVATIONS)
    | _under("torch._C._nn", _ACTIVATIONS)
    | _under("torch", "relu relu_ tanh sigmoid softmax log_softmax selu celu rrelu prelu")
    | _under("numpy", _NUMPY_SCALARS)
    | _under("ml_dtypes", _ML_DTYPES)
    | _under("numpy.random", _NUMPY_RANDOM)
)
"""Names that stand for an element type, a function of a layer and the like: never called."""

_INSTALLERS = frozenset(
    "pip setuptools pkg_resources wheel easy_install _distutils_hack conda mamba libmambapy virtualenv pipx pipenv "
    "piptools uv pdm poetry hatch hatchling flit flit_core maturin build installer distlib pyproject_hooks twine shiv "
    "pex micropip".split()
)
_TORCH_FAMILY = frozenset("torch torchgen functorch caffe2 _torch".split())
_RUNNERS = frozenset(
    "dill cloudpickle jsonpickle joblib IPython ipykernel six pexpect ptyprocess fabric plumbum paramiko requests "
    "urllib3 httpx aiohttp httplib2 websockets pytest _pytest nose cffi pyximport asteval execnet psutil win32api "
    "win32com fickling picklescan modelscan".split()
)
_DOERS = frozenset(
    "eval exec execfile compile open getattr setattr delattr globals locals vars breakpoint system popen Popen "
    "check_call check_output getoutput getstatusoutput spawnl spawnv execl execv fork import_module exec_module "
    "run_path run_module loads load_module".split()
)


def judge(name: Global) -> Judgement:
    """Return what becomes of a name."""
    parts = name.module.split(".") + name.name.split(".")
    if not all(part.isidentifier() for part in parts):
        return Judgement(Verdict.REFUSED, "not the name of a class")
    full = canonical(name)
    if full in CALLABLE or full in _REFERENCES:
        return Judgement(Verdict.KNOWN, "known")
    kind = kind_of(full)
    if kind is not None:
        return Judgement(Verdict.INERT, f"{kind.words}, kept as inert data")
    private = [part for part in parts if part.startswith("__") and part.endswith("__")]
    if private and name.module.split(".")[0] not in ("__torch__", "__main__", "__mp_main__"):
        return Judgement(Verdict.REFUSED, f"{private[0]} leads into the interpreter")
    if len(private) > 1 or name.name.startswith("__"):
        return Judgement(Verdict.REFUSED, f"{private[-1] if private else name.name} leads into the interpreter")
    return _judge_family(name, parts)


def _judge_family(name: Global, parts: list[str]) -> Judgement:
    # Some file systems and `import` take these spellings for the same name.
    top = unicodedata.normalize("NFKC", parts[0])
    for family, words in _FAMILIES:
        if top in family or top.casefold() in family:
            if top == "torch" and _is_layer_or_optimizer(name):
                return Judgement(Verdict.INERT, "a class of PyTorch, kept as inert data")
            return Judgement(Verdict.REFUSED, words)
    if name.module == "__torch__" or name.module.startswith("__torch__."):
        return Judgement(Verdict.INERT, "a class of TorchScript code, kept as inert data")
    attributes = name.name.split(".")
    if len(attributes) > 1 and any(part in STANDARD_LIBRARY or part.islower() for part in attributes[:-1]):
        return Judgement(Verdict.REFUSED, "leads through one module into another")
    if attributes[-1] in _DOERS:
        return Judgement(Verdict.REFUSED, f"{attributes[-1]} runs code, whatever its module")
    return Judgement(Verdict.UNKNOWN, "a class of another package, kept as inert data")


_FAMILIES = (
    (STANDARD_LIBRARY, "part of Python, and no checkpoint needs it"),
    (_TORCH_FAMILY, "part of PyTorch, and no checkpoint needs it"),
    (frozenset({"numpy"}), "part of NumPy, and no checkpoint needs it"),
    (frozenset({"ml_dtypes"}), "part of ml_dtypes, and no checkpoint needs it"),
    (_INSTALLERS, "part of a package installer"),
    (_RUNNERS, "part of a package that runs code or uses the network"),
)


def _is_layer_or_optimizer(name: Global) -> bool:
    """Say whether it can be a class under `torch.nn` or `torch.optim`: one name with a capital, as classes have."""
    inside = name.module.startswith(("torch.nn.", "torch.optim.")) or name.module in ("torch.nn", "torch.optim")
    word = name.name.removeprefix("_")
    return inside and "." not in name.name and word[:1].isupper()


def judge_call(name: Global) -> Judgement:
    """Return what becomes of a name that is called, or that an object is made of."""
    judgement, full = judge(name), canonical(name)
    if full in CHECKED:
        return Judgement(Verdict.REFUSED, "called in a way that no checkpoint does")
    kind = kind_of(full)
    if full not in CALLABLE and (judgement.verdict is Verdict.KNOWN or (kind is not None and not kind.made)):
        return Judgement(Verdict.REFUSED, "called, which no checkpoint does")
    return judgement
