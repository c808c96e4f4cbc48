"""`python -m ckptfmt_cli` is `ckptfmt`."""

from ckptfmt_cli.main import main

if __name__ == "__main__":
    main()
