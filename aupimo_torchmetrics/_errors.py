"""Errors that say that data, and not the call, are the reason."""


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
