"""The top-level modules of Python's standard library.

A list of our own, because `sys.stdlib_module_names` knows those of the running version only: what is refused must not
depend on that. Python 2, Jython and the removed and private modules are in it.
"""

from __future__ import annotations

__all__ = ["STANDARD_LIBRARY"]

STANDARD_LIBRARY = frozenset(
    """
BaseHTTPServer Bastion CGIHTTPServer ConfigParser Cookie DocXMLRPCServer HTMLParser Microsoft Queue SimpleHTTPServer
SimpleXMLRPCServer SocketServer StringIO Tkinter UserDict UserList UserString __builtin__ __builtins__ __future__
__jython__ __pypy__ _abc _aix_support _android_support _apple_support _ast _asyncio _bisect _blake2 _bootlocale
_bootsubprocess _bz2 _cffi_backend _codecs _codecs_cn _codecs_hk _codecs_iso2022 _codecs_jp _codecs_kr _codecs_tw
_collections _collections_abc _colorize _compat_pickle _compression _contextvars _crypt _csv _ctypes _curses
_curses_panel _datetime _dbm _decimal _dummy_thread _elementtree _frozen_importlib _frozen_importlib_external
_functools _gdbm _hashlib _heapq _hmac _imp _interpchannels _interpqueues _interpreters _io _ios_support _json
_locale _lsprof _lzma _markupbase _md5 _missing_stdlib_info _msi _multibytecodec _multiprocessing _opcode
_opcode_metadata _operator _osx_support _overlapped _pickle _posixshmem _posixsubprocess _py_abc _py_warnings
_pydecimal _pyio _pyrepl _queue _random _remote_debugging _scproxy _sha1 _sha256 _sha3 _sha512 _signal _sitebuiltins
_socket _sqlite3 _sre _ssl _stat _statistics _string _strptime _struct _suggestions _symtable _sysconfig _testbuffer
_testcapi _testclinic _testimportmultiple _testinternalcapi _testmultiphase _thread _threading_local _tkinter
_tokenize _tracemalloc _types _typing _uuid _warnings _weakref _weakrefset _winapi _winreg _xxtestfuzz _zoneinfo
_zstd abc aifc annotationlib antigravity anydbm argparse array ast asynchat asyncio asyncore atexit audioop base64
bdb binascii binhex bisect bsddb builtins bz2 cPickle cProfile cStringIO calendar cgi cgitb chunk clr cmath cmd code
codecs codeop collections colorsys commands compileall compiler compression concurrent configparser contextlib
contextvars cookielib copy copy_reg copyreg crypt csv ctypes curses dataclasses datetime dbhash dbm decimal difflib
dircache dis distutils doctest dumbdbm dummy_thread dummy_threading email encodings ensurepip enum errno exceptions
faulthandler fcntl filecmp fileinput fnmatch formatter fpformat fractions ftplib functools future_builtins gc gdbm
genericpath getopt getpass gettext glob graphlib grp gzip hashlib heapq hmac html htmllib http httplib idlelib
ihooks imaplib imghdr imp importlib imputil inspect io ipaddress itertools jarray java javax json keyword lib2to3
linecache locale logging lzma macostools macpath mailbox mailcap marshal math md5 mhlib mimetools mimetypes mimify
mmap modulefinder msilib msvcrt multifile multiprocessing mutex netrc new nis nntplib nt ntpath nturl2path numbers
opcode operator optparse os os2 os2emxpath ossaudiodev parser pathlib pdb pickle pickletools pipes pkgutil platform
plistlib popen2 poplib posix posixfile posixpath pprint profile pstats pty pwd py_compile pyclbr pydoc pydoc_data
pyexpat queue quopri random re readline reprlib resource rexec rfc822 rlcompleter runpy sched secrets select
selectors sets sgmllib sha shelve shlex shutil signal site sitecustomize smtpd smtplib sndhdr socket socketserver
spwd sqlite3 sre sre_compile sre_constants sre_parse ssl stat statistics statvfs string stringprep struct subprocess
sunau symbol symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile termios test textwrap this thread
threading time timeit tkFileDialog tkMessageBox tkinter toaiff token tokenize tomllib trace traceback tracemalloc
tty turtle turtledemo types typing unicodedata unittest urllib urllib2 urlparse usercustomize uu uuid venv warnings
wave weakref webbrowser whichdb winreg winsound wsgiref xdrlib xml xmlrpc xmlrpclib xxlimited xxsubtype zipapp
zipfile zipimport zlib zoneinfo
""".split()
)
