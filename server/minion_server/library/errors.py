"""What can go wrong in the library; every text is fit to be a job's result."""


class LibraryError(Exception):
    """Raised when a library task cannot do its work."""


class SettingError(LibraryError):
    """Raised when an environment variable has a value that is no good."""


class RefusedError(LibraryError):
    """Raised when a file cannot be taken into the library, or read out of it, as an archive."""


class PageError(LibraryError):
    """Raised when one page of an archive cannot be read or drawn."""


class NotInLibraryError(LibraryError):
    """Raised when no archive of the library has the id."""


def reason(error: BaseException) -> str:
    """Say in words why an operation failed, without the path that an OSError repeats."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
