"""Publishes the tree that a configuration file describes, by the C ABI: publish.py LIBRARY brigade.toml [DESTINATION]"""
import ctypes
import json
import sys
from ctypes import POINTER, byref, c_bool, c_char_p, c_void_p


def load(path):
    """Loads the shared library, with the types of what is used here."""
    library = ctypes.CDLL(path)
    handle, result = c_void_p, POINTER(c_void_p)
    for name, arguments, returned in [
        ("bb_config_load", [c_char_p, c_char_p, result, result], ctypes.c_uint32),
        ("bb_site_open", [handle, result, result], ctypes.c_uint32),
        ("bb_rescan", [handle, result, result], ctypes.c_uint32),
        ("bb_error_text", [handle], c_char_p),
        ("bb_report_json", [handle], c_char_p),
        ("bb_report_is_complete", [handle], c_bool),
        ("bb_config_free", [handle], None),
        ("bb_site_free", [handle], None),
    ]:
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, returned
    return library


def main(path, file, destination=None):
    bb = load(path)
    config, site, report, error = c_void_p(), c_void_p(), c_void_p(), c_void_p()
    name = destination.encode() if destination else None
    if (bb.bb_config_load(file.encode(), name, byref(config), byref(error))
            or bb.bb_site_open(config, byref(site), byref(error))
            or bb.bb_rescan(site, byref(report), byref(error))):
        sys.exit(bb.bb_error_text(error).decode())
    done = json.loads(bb.bb_report_json(report))
    print(f"{done['outcome']}: {done['uploaded']} uploaded, {done['deleted']} deleted")
    bb.bb_site_free(site)
    bb.bb_config_free(config)
    return 0 if bb.bb_report_is_complete(report) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
