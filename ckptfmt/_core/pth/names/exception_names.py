"""The exceptions of Python and its standard library, by module: objects that say what went wrong, and do nothing.

A list of our own, because the running version knows only its own.
"""

from __future__ import annotations

__all__ = ["EXCEPTIONS", "names_of"]


def names_of(table: str) -> frozenset[str]:
    """Return the dotted names of a table of lines `module: name name`, of which those that are indented go on."""
    found: set[str] = set()
    module = ""
    for word in table.split():
        if word.endswith(":"):
            module = word[:-1]
        else:
            found.add(f"{module}.{word}")
    return frozenset(found)


EXCEPTIONS = names_of("""
argparse: ArgumentError ArgumentTypeError
asyncio.exceptions: BrokenBarrierError CancelledError IncompleteReadError InvalidStateError LimitOverrunError
    SendfileNotAvailableError TimeoutError
asyncio.queues: QueueEmpty QueueFull QueueShutDown
binascii: Error Incomplete
builtins: ArithmeticError AssertionError AttributeError BaseException BaseExceptionGroup BlockingIOError
    BrokenPipeError BufferError BytesWarning ChildProcessError ConnectionAbortedError ConnectionError
    ConnectionRefusedError ConnectionResetError DeprecationWarning EOFError EncodingWarning EnvironmentError Exception
    ExceptionGroup FileExistsError FileNotFoundError FloatingPointError FutureWarning GeneratorExit ImportError
    ImportWarning IOError IndentationError IndexError InterruptedError IsADirectoryError KeyError KeyboardInterrupt
    LookupError MemoryError ModuleNotFoundError NameError NotADirectoryError NotImplementedError OSError OverflowError
    PendingDeprecationWarning PermissionError ProcessLookupError PythonFinalizationError RecursionError ReferenceError
    ResourceWarning RuntimeError RuntimeWarning StopAsyncIteration StopIteration SyntaxError SyntaxWarning SystemError
    SystemExit TabError TimeoutError TypeError UnboundLocalError UnicodeDecodeError UnicodeEncodeError UnicodeError
    UnicodeTranslateError UnicodeWarning UserWarning ValueError Warning ZeroDivisionError
calendar: IllegalMonthError IllegalWeekdayError
concurrent.futures._base: BrokenExecutor CancelledError Error InvalidStateError TimeoutError
concurrent.futures.process: BrokenProcessPool
concurrent.futures.thread: BrokenThreadPool
configparser: DuplicateOptionError DuplicateSectionError Error InterpolationDepthError InterpolationError
    InterpolationMissingOptionError InterpolationSyntaxError MissingSectionHeaderError MultilineContinuationError
    NoOptionError NoSectionError ParsingError
copy: Error
ctypes: ArgumentError
dataclasses: FrozenInstanceError
decimal: Clamped ConversionSyntax DecimalException DivisionByZero DivisionImpossible DivisionUndefined FloatOperation
    Inexact InvalidContext InvalidOperation Overflow Rounded Subnormal Underflow
email.errors: BoundaryError CharsetError CloseBoundaryNotFoundDefect FirstHeaderLineIsContinuationDefect HeaderDefect
    HeaderMissingRequiredValue HeaderParseError HeaderWriteError InvalidBase64CharactersDefect
    InvalidBase64LengthDefect InvalidBase64PaddingDefect InvalidDateDefect InvalidHeaderDefect
    InvalidMultipartContentTransferEncodingDefect MessageDefect MessageError MessageParseError
    MisplacedEnvelopeHeaderDefect MissingHeaderBodySeparatorDefect MultipartConversionError
    MultipartInvariantViolationDefect NoBoundaryInMultipartDefect NonASCIILocalPartDefect NonPrintableDefect
    ObsoleteHeaderDefect StartBoundaryNotFoundDefect UndecodableBytesDefect
ftplib: Error error_perm error_proto error_reply error_temp
getopt: GetoptError
graphlib: CycleError
gzip: BadGzipFile
http.client: BadStatusLine CannotSendHeader CannotSendRequest HTTPException ImproperConnectionState IncompleteRead
    InvalidURL LineTooLong NotConnected RemoteDisconnected ResponseNotReady UnimplementedFileMode UnknownProtocol
    UnknownTransferEncoding
http.cookiejar: LoadError
http.cookies: CookieError
importlib.metadata: PackageNotFoundError
inspect: ClassFoundException EndOfBlock
io: UnsupportedOperation
ipaddress: AddressValueError NetmaskValueError
json.decoder: JSONDecodeError
locale: Error
mailbox: Error ExternalClashError FormatError NoSuchMailboxError NotEmptyError
multiprocessing.context: AuthenticationError BufferTooShort ProcessError TimeoutError
multiprocessing.managers: RemoteError
multiprocessing.pool: MaybeEncodingError RemoteTraceback
netrc: NetrcParseError
optparse: AmbiguousOptionError BadOptionError OptParseError OptionConflictError OptionError OptionValueError
plistlib: InvalidFileException
poplib: error_proto
queue: Empty Full ShutDown
re: PatternError error
shutil: Error ExecError ReadError RegistryError SameFileError SpecialFileError
signal: ItimerError
smtplib: SMTPAuthenticationError SMTPConnectError SMTPDataError SMTPException SMTPHeloError SMTPNotSupportedError
    SMTPRecipientsRefused SMTPResponseException SMTPSenderRefused SMTPServerDisconnected
socket: gaierror herror timeout
sqlite3: DataError DatabaseError Error IntegrityError InterfaceError InternalError NotSupportedError OperationalError
    ProgrammingError Warning
ssl: CertificateError SSLCertVerificationError SSLEOFError SSLError SSLSyscallError SSLWantReadError SSLWantWriteError
    SSLZeroReturnError
statistics: StatisticsError
struct: error
subprocess: CalledProcessError SubprocessError TimeoutExpired
tarfile: AbsoluteLinkError AbsolutePathError CompressionError EOFHeaderError EmptyHeaderError ExtractError FilterError
    HeaderError InvalidHeaderError LinkOutsideDestinationError OutsideDestinationError ReadError SpecialFileError
    StreamError SubsequentHeaderError TarError TruncatedHeaderError
threading: BrokenBarrierError
tokenize: StopTokenizing TokenError
tomllib: TOMLDecodeError
urllib.error: ContentTooShortError HTTPError URLError
wave: Error
xml.dom: DOMException DomstringSizeErr HierarchyRequestErr IndexSizeErr InuseAttributeErr InvalidAccessErr
    InvalidCharacterErr InvalidModificationErr InvalidStateErr NamespaceErr NoDataAllowedErr NoModificationAllowedErr
    NotFoundErr NotSupportedErr SyntaxErr ValidationErr WrongDocumentErr
xml.etree.ElementTree: ParseError
xml.parsers.expat: ExpatError
xml.sax._exceptions: SAXException SAXNotRecognizedException SAXNotSupportedException SAXParseException
    SAXReaderNotAvailable
xmlrpc.client: Error Fault ProtocolError ResponseError
zipfile: BadZipFile LargeZipFile
zlib: error
zoneinfo._common: ZoneInfoNotFoundError
""")
