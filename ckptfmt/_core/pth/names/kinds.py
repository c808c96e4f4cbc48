"""What a name may stand for, though no checkpoint needs it: kinds of values that do nothing, and are kept as data.

A name is here because of what it is: an exception holds a text, an enumeration a number, a function that computes is a
name for how something was computed. What acts when it is made or called (opens, imports, runs, sends, evaluates text)
is of no kind, so it is refused. What is only named is never called; what is called is an object that is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ckptfmt._core.pth.names.exception_names import EXCEPTIONS, names_of

__all__ = ["CHECKED", "ENUMERATIONS", "GENERIC", "STRUCT_SEQUENCES", "Kind", "kind_of"]


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        words: What it is, in words that go on after the name.
        made: Whether objects of it may be made; else it may only be named.
    """

    words: str
    made: bool = False


ENUMERATIONS = names_of("""
calendar: Day Month
http: HTTPMethod HTTPStatus
inspect: _ParameterKind
plistlib: PlistFormat
re: RegexFlag
signal: Handlers Sigmasks Signals
socket: AddressFamily AddressInfo MsgFlag SocketKind
ssl: AlertDescription Options Purpose SSLErrorNumber TLSVersion VerifyFlags VerifyMode
uuid: SafeUUID
""")
STRUCT_SEQUENCES = names_of("""
time: struct_time
os: sched_param stat_result statvfs_result terminal_size times_result uname_result waitid_result
resource: struct_rusage
pwd: struct_passwd
grp: struct_group
spwd: struct_spwd
""")
_NAMED_TUPLES = names_of("""
decimal: DecimalTuple
difflib: Match
inspect: ArgInfo ArgSpec Arguments Attribute FullArgSpec
platform: AndroidVer IOSVersionInfo uname_result
statistics: LinearRegression
urllib.parse: DefragResult DefragResultBytes ParseResult ParseResultBytes SplitResult SplitResultBytes
""")
_HOLDERS = names_of("""
array: array _array_reconstructor
collections: ChainMap UserDict UserList UserString
dataclasses: _MISSING_TYPE
decimal: Context
inspect: Parameter Signature
ipaddress: IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network
optparse: Values
random: Random
string: Template
""")
_ITERATORS = names_of("""
builtins: enumerate iter reversed zip
itertools: chain combinations combinations_with_replacement count cycle islice permutations product repeat
    zip_longest
""")
GENERIC = names_of("""
typing: AbstractSet Annotated Any AnyStr AsyncContextManager AsyncGenerator AsyncIterable AsyncIterator Awaitable
    BinaryIO ByteString CT_co Callable ChainMap ClassVar Collection Concatenate Container ContextManager Coroutine
    Counter DefaultDict Deque Dict Final FrozenSet Generator Generic Hashable IO ItemsView Iterable Iterator KT
    KeysView List Literal LiteralString Mapping MappingView Match MutableMapping MutableSequence MutableSet Never
    NoReturn NotRequired Optional OrderedDict Pattern Protocol ReadOnly Required Reversible Self Sequence Set Sized
    SupportsAbs SupportsBytes SupportsComplex SupportsFloat SupportsIndex SupportsInt SupportsRound T T_co T_contra
    Text TextIO Tuple Type TypeAlias TypeGuard TypeIs Union Unpack VT VT_co V_co ValuesView
typing_extensions: Annotated Any Callable ClassVar Concatenate Final Generic Literal LiteralString Never NoReturn
    NotRequired Optional Protocol ReadOnly Required Self Tuple Type TypeAlias TypeGuard TypeIs Union Unpack
""")
_ABSTRACT = names_of("""
abc: ABC ABCMeta
collections.abc: AsyncGenerator AsyncIterable AsyncIterator Awaitable Buffer ByteString Callable Collection Container
    Coroutine Generator Hashable ItemsView Iterable Iterator KeysView Mapping MappingView MutableMapping
    MutableSequence MutableSet Reversible Sequence Set Sized ValuesView
datetime: tzinfo
enum: Enum Flag IntEnum IntFlag StrEnum auto
numbers: Complex Integral Number Rational Real
os: PathLike
""")
_TYPES = names_of("""
builtins: Ellipsis NotImplemented classmethod filter map memoryview property staticmethod super type
inspect: _empty
torch._C: TensorBase _TensorBase _VariableFunctionsClass
zoneinfo: ZoneInfo
types: AsyncGeneratorType BuiltinFunctionType BuiltinMethodType CoroutineType EllipsisType FrameType FunctionType
    GeneratorType LambdaType MappingProxyType MethodType ModuleType NoneType NotImplementedType TracebackType
""")
_FUNCTIONS = names_of("""
builtins: abs all any ascii bin callable chr divmod format hash hex id isinstance issubclass len max min next oct ord
    pow repr round sorted sum
cmath: acos acosh asin asinh atan atanh cos cosh exp isclose isfinite isinf isnan log log10 phase polar rect sin sinh
    sqrt tan tanh
math: acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist erf erfc exp exp2 expm1
    fabs factorial floor fma fmod frexp fsum gamma gcd hypot isclose isfinite isinf isnan isqrt lcm ldexp lgamma log
    log10 log1p log2 modf nextafter perm pow prod radians remainder sin sinh sqrt sumprod tan tanh trunc ulp
operator: abs add and_ concat contains countOf eq floordiv ge gt iadd iand iconcat ifloordiv ilshift imatmul imod imul
    index indexOf inv invert ior ipow irshift is_ is_not isub itruediv ixor le length_hint lshift lt matmul mod mul ne
    neg not_ or_ pos pow rshift sub truediv truth xor
statistics: fmean geometric_mean harmonic_mean mean median median_high median_low mode pstdev pvariance stdev variance
numpy: abs absolute add all amax amin any arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin average
    bitwise_and bitwise_not bitwise_or bitwise_xor cbrt ceil clip conj conjugate copysign cos cosh cumprod cumsum
    deg2rad degrees divide divmod dot equal exp exp2 expm1 fabs float_power floor floor_divide fmax fmin fmod frexp
    gcd greater greater_equal heaviside hypot invert isfinite isinf isnan isnat lcm ldexp left_shift less less_equal
    log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor matmul max maximum mean
    median min minimum mod modf multiply nanmax nanmean nanmin nansum negative nextafter not_equal positive power prod
    rad2deg radians reciprocal remainder right_shift rint sign signbit sin sinh spacing sqrt square std subtract sum
    tan tanh true_divide trunc var vdot
""")
CHECKED = names_of("""
builtins: getattr type
functools: partial reduce
operator: getitem or_
""")
"""Names of which a call is taken only in the forms of `pth.pickle.folding`, which stand for something plain."""

_NUMPY_CLASSES = names_of("""
numpy: chararray matrix memmap record recarray ufunc generic number integer inexact floating complexfloating flexible
    character signedinteger unsignedinteger
numpy.ma: MaskedArray
numpy.random: Generator RandomState
numpy.random._generator: Generator
numpy.random.mtrand: RandomState
numpy.random.bit_generator: BitGenerator SeedSequence
""")
_NUMPY_HOLDERS = names_of("""
numpy: finfo iinfo poly1d
numpy.ma: MaskedConstant
numpy.polynomial.chebyshev: Chebyshev
numpy.polynomial.hermite: Hermite
numpy.polynomial.hermite_e: HermiteE
numpy.polynomial.laguerre: Laguerre
numpy.polynomial.legendre: Legendre
numpy.polynomial.polynomial: Polynomial
""")

_KINDS: dict[str, Kind] = {
    name: kind
    for names, kind in (
        (ENUMERATIONS, Kind("an enumeration of Python", made=True)),
        (STRUCT_SEQUENCES, Kind("a named row of numbers", made=True)),
        (_NAMED_TUPLES, Kind("a named tuple of Python", made=True)),
        (_HOLDERS, Kind("a holder of plain values", made=True)),
        (_ITERATORS, Kind("an iterator over plain values", made=True)),
        (EXCEPTIONS, Kind("an exception", made=True)),
        (GENERIC, Kind("a type hint")),
        (_ABSTRACT, Kind("an abstract class")),
        (_TYPES, Kind("a type or a constant")),
        (_FUNCTIONS, Kind("a function that only computes")),
        (CHECKED, Kind("named, and called at most for something plain")),
        (_NUMPY_CLASSES, Kind("a class of NumPy")),
        (_NUMPY_HOLDERS, Kind("a holder of numbers", made=True)),
    )
    for name in names
}

_PLAIN_TYPES = "int float complex bool str bytes bytearray list tuple dict set frozenset range slice object".split()
_MEMBER = re.compile(r"[A-Za-z]\w*")
_CONSTANTS = re.compile(r"signal\.(?:SIG|ITIMER_)\w+|socket\.(?:AF|AI|MSG|SOCK)_\w+|re\.[A-Z]+")
_NUMPY_DTYPES = re.compile(r"numpy\.dtypes\.\w+DType")
_TENSOR_FUNCTIONS = re.compile(
    r"torch\._C\.(?:_VariableFunctionsClass|TensorBase|_TensorBase)\.(?!from_file\b)[A-Za-z]\w*"
)
_TENSOR_TUPLES = re.compile(r"torch\.return_types\.[A-Za-z]\w*")


def kind_of(full: str) -> Kind | None:
    """Return the kind of a name in its canonical form; None if it is of none."""
    found = _KINDS.get(full)
    if found is not None:
        return found
    owner, _, member = full.rpartition(".")
    if owner in ENUMERATIONS and _MEMBER.fullmatch(member):
        return Kind("a member of an enumeration")
    if owner.removeprefix("builtins.") in _PLAIN_TYPES and owner.startswith("builtins.") and _MEMBER.fullmatch(member):
        return Kind("a method of a plain type")
    if _CONSTANTS.fullmatch(full):
        return Kind("a constant of Python")
    if _NUMPY_DTYPES.fullmatch(full):
        return Kind("a dtype of NumPy")
    if _TENSOR_FUNCTIONS.fullmatch(full):
        return Kind("a function of tensors")
    if _TENSOR_TUPLES.fullmatch(full):
        return Kind("a named tuple of tensors", made=True)
    return None
