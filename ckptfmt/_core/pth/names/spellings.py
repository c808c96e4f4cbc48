"""One name for what pickles spell in several ways: Python 2's names, C modules behind others, moved modules.

Protocols up to 2, which `torch.save` writes unless told otherwise, have the names of Python 2: `__builtin__.long` for
`int`. The tables are those of Python's own `_compat_pickle`, put down here so that they are the same in every version.
"""

from __future__ import annotations

from ckptfmt._core.pth.nodes import Global

__all__ = ["canonical"]


def _table(text: str) -> dict[str, str]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


_PYTHON2_NAMES = _table("""
__builtin__.xrange builtins.range __builtin__.reduce functools.reduce __builtin__.intern sys.intern
__builtin__.unichr builtins.chr __builtin__.unicode builtins.str __builtin__.long builtins.int
__builtin__.basestring builtins.str itertools.izip builtins.zip itertools.imap builtins.map
itertools.ifilter builtins.filter itertools.ifilterfalse itertools.filterfalse
itertools.izip_longest itertools.zip_longest UserDict.IterableUserDict collections.UserDict
UserDict.UserDict collections.UserDict whichdb.whichdb dbm.whichdb _socket.fromfd socket.fromfd
_multiprocessing.Connection multiprocessing.connection.Connection
multiprocessing.process.Process multiprocessing.context.Process
multiprocessing.forking.Popen multiprocessing.popen_fork.Popen
multiprocessing.AuthenticationError multiprocessing.context.AuthenticationError
multiprocessing.BufferTooShort multiprocessing.context.BufferTooShort
multiprocessing.ProcessError multiprocessing.context.ProcessError
multiprocessing.TimeoutError multiprocessing.context.TimeoutError
urllib.ContentTooShortError urllib.error.ContentTooShortError urllib.getproxies urllib.request.getproxies
urllib.pathname2url urllib.request.pathname2url urllib.quote_plus urllib.parse.quote_plus
urllib.quote urllib.parse.quote urllib.unquote_plus urllib.parse.unquote_plus urllib.unquote urllib.parse.unquote
urllib.url2pathname urllib.request.url2pathname urllib.urlcleanup urllib.request.urlcleanup
urllib.urlencode urllib.parse.urlencode urllib.urlopen urllib.request.urlopen
urllib.urlretrieve urllib.request.urlretrieve urllib2.HTTPError urllib.error.HTTPError
urllib2.URLError urllib.error.URLError socket._socketobject socket.SocketType
exceptions.StandardError builtins.Exception
""")
_PYTHON2_MODULES = _table("""
__builtin__ builtins exceptions builtins copy_reg copyreg Queue queue SocketServer socketserver
ConfigParser configparser repr reprlib tkFileDialog tkinter.filedialog tkSimpleDialog tkinter.simpledialog
tkColorChooser tkinter.colorchooser tkCommonDialog tkinter.commondialog Dialog tkinter.dialog Tkdnd tkinter.dnd
tkFont tkinter.font tkMessageBox tkinter.messagebox ScrolledText tkinter.scrolledtext Tkconstants tkinter.constants
Tix tkinter.tix ttk tkinter.ttk Tkinter tkinter markupbase _markupbase _winreg winreg thread _thread
dummy_thread _dummy_thread dbhash dbm.bsd dumbdbm dbm.dumb dbm dbm.ndbm gdbm dbm.gnu xmlrpclib xmlrpc.client
SimpleXMLRPCServer xmlrpc.server httplib http.client htmlentitydefs html.entities HTMLParser html.parser
Cookie http.cookies cookielib http.cookiejar BaseHTTPServer http.server test.test_support test.support
commands subprocess urlparse urllib.parse robotparser urllib.robotparser urllib2 urllib.request anydbm dbm
_abcoll collections.abc cPickle pickle _elementtree xml.etree.ElementTree FileDialog tkinter.filedialog
SimpleDialog tkinter.simpledialog DocXMLRPCServer xmlrpc.server SimpleHTTPServer http.server
CGIHTTPServer http.server UserDict collections UserList collections UserString collections whichdb dbm
StringIO io cStringIO io
""")
_BEHIND_OTHERS = _table("""
_io io _operator operator _functools functools _collections collections _collections_abc collections.abc
_random random _decimal decimal _pydecimal decimal _datetime datetime _pydatetime datetime _queue queue
_struct struct posix os nt os pathlib._local pathlib sre_constants re torch.tensor torch._tensor
numpy.core numpy._core numpy.rec numpy numpy.char numpy numpy.ma.core numpy.ma numpy.matrixlib.defmatrix numpy
numpy.core.records numpy numpy.core.defchararray numpy numpy.lib.polynomial numpy numpy.core.getlimits numpy
""")
_MOVED_NAMES = _table("torch._tensor.Tensor torch.Tensor torch._C.Generator torch.Generator")
_INSIDE = (("numpy.core.", "numpy._core."),)


def canonical(name: Global) -> str:
    """Return the dotted name under which the tables have it: that of Python 3 and of current releases."""
    head, dot, inner = name.name.partition(".")
    found = _PYTHON2_NAMES.get(f"{name.module}.{head}")
    if found is not None:
        found += dot + inner
    else:
        module = _PYTHON2_MODULES.get(name.module, name.module)
        module = _BEHIND_OTHERS.get(module, module)
        for old, new in _INSIDE:
            if module.startswith(old):
                module = new + module.removeprefix(old)
        found = f"{module}.{name.name}"
    return _MOVED_NAMES.get(found, found)
