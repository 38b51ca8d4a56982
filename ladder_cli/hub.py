"""Asks once and briefly whether the model hub answers, before its libraries are imported. Imports no torch.

Without a network those libraries retry for a minute and print a line each time. Compute nodes have no network: there
the libraries are switched to offline mode and read their caches.
"""

import functools
import os
import ssl
import sys
import threading

from ladder_cli.errors import NotReachable

OFFLINE = "HF_HUB_OFFLINE"
_OFFLINE_TOO = (OFFLINE, "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_TRUE = ("1", "ON", "YES", "TRUE")
_PATIENCE_SECONDS = 3.0


def settle_offline() -> None:
    """Switch the hub's libraries to offline mode unless the hub answers one request within a few seconds."""
    if offline() or answers(endpoint()):
        return
    os.environ[OFFLINE] = "1"
    # Libraries that are imported already (by another run of a sweep, by a test) read the variable before it was set.
    for module, name in (("huggingface_hub.constants", OFFLINE), ("datasets.config", OFFLINE)):
        if module in sys.modules:
            setattr(sys.modules[module], name, True)


def offline() -> bool:
    """Return whether the environment forbids to ask the hub."""
    return any(os.environ.get(name, "").upper() in _TRUE for name in _OFFLINE_TOO)


def endpoint() -> str:
    """The address of the hub."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def reason() -> str:
    """Say why the hub was not asked, as half a sentence: it does not answer, or the user forbade it."""
    if endpoint() in _silent:
        return f"{endpoint()} does not answer"
    return f"the hub is not asked ({OFFLINE}=1)"


def cached(repository: str, revision: str | None) -> bool:
    """Return whether the local cache holds the config of a model."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str)
    except HFValidationError:
        return False


def require_model(name: str, repository: str, revision: str | None) -> None:
    """Check that a model of the hub can be had, before anything slow is imported.

    Raises:
        NotReachable: if the hub does not answer and the cache does not hold it.
    """
    settle_offline()
    if offline() and not cached(repository, revision):
        raise NotReachable(missing_model(name, repository))


def missing_model(name: str, repository: str) -> str:
    """Return the message for a model that is neither in the cache nor reachable."""
    return (
        f"model={name}: '{repository}' is not in the cache of this machine, and {reason()}: give its folder as "
        f"model.path=DIR, or fetch it where there is a network (hf download {repository})."
    )


def missing_set(name: str, repository: str, split: str) -> str:
    """Return the message for a data set that is neither in the cache nor reachable."""
    return (
        f"data set '{name}': '{repository}' (split {split}) is not in the cache of this machine, and {reason()}: give "
        f"a mirror with {name}/{split}.jsonl or .parquet as data_dir=DIR (python scripts/prefetch.py --data-dir DIR "
        f"--only {name} makes one where there is a network)."
    )


_silent: set[str] = set()


@functools.cache
def answers(address: str) -> bool:
    """Return whether an address answers within a few seconds, with any status; through a proxy if one is set."""
    found: list[bool] = []

    def ask() -> None:
        import http.client
        import urllib.error
        import urllib.request

        try:
            request = urllib.request.Request(address, method="HEAD")
            urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS).close()
        except urllib.error.HTTPError:
            found.append(True)
        except urllib.error.URLError as error:
            # The libraries have their own list of certificates, so they may trust one that is not trusted here.
            found.append(isinstance(error.reason, ssl.SSLCertVerificationError))
        except (OSError, ValueError, http.client.HTTPException):
            found.append(False)
        else:
            found.append(True)

    # Name resolution has no timeout, so it runs in a thread that can be abandoned.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PATIENCE_SECONDS)
    if not any(found):
        _silent.add(address)
    return any(found)
