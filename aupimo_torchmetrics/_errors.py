"""Errors of settings and of data, which are classes of their own so that no `ValueError` of a bug is taken for one."""


class SettingError(ValueError):
    """A setting that is out of its range, does not go with the others, or names what is not there.

    Who calls a function need not know it from other `ValueError`s; the command does, whose own mistakes are tracebacks.

    """


class BadDataError(ValueError):
    """Files or data that cannot be used.

    Example:
        >>> import tempfile
        >>> from aupimo_torchmetrics.evaluate import BadDataError, open_maps
        >>> with tempfile.TemporaryDirectory() as empty:
        ...     try:
        ...         open_maps(empty)
        ...     except BadDataError as error:
        ...         print(str(error).replace(empty, "FOLDER"))
        Expected FOLDER to hold maps (.tiff, .tif, .png, .npy, .npz, .pt, .pth), but found none.

    """
