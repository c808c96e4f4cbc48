"""The implementation of ckptfmt. Private: what others may use is in `ckptfmt`, `ckptfmt.errors` and `ckptfmt.torch`."""
