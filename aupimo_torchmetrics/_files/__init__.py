"""Read and write files. Those that come from elsewhere are read by well-known libraries, and may be made to mislead.

What is promised: no code in a file is run, no file outside of the given folder is opened, and the size that a file
declares is checked before its pixels are read. What cannot be read is a `BadDataError` with the reason.

What is not promised: a hostile file may still cost time and memory, as much as the libraries take to unpack it. Read
files that nobody vouches for where both are limited.
"""
