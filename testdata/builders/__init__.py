"""One module per format; `common` says how to write one."""
