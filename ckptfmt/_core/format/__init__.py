"""The pure layer: bytes to frozen dataclasses and back.

Nothing here opens a file, and nothing here knows NumPy or PyTorch. Every function takes bytes and either
returns a value or raises a `ckptfmt.errors.FormatError`; nothing else comes out, whatever goes in.
"""
