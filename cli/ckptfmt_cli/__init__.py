"""The ckptfmt command-line tool.

`main` parses arguments and turns errors into exit codes, `commands` holds one module per command, `views` turns
a report of `ops` into lines of text, `render` puts it on the screen.
"""
