"""Launches that `test_cuda_launches.py` makes in a process of its own, whose driver is ``stub_driver.c``.

Prints one JSON object a launch: what the driver was given, or the error.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading

from cuda.bindings import driver

from fastnlp.kernels.cuda import _chunks, _reduce, prims

STUB = ctypes.CDLL(sys.argv[1])
WORDS = ("i64*", "i64*", "i64", None)
SCALES = ("i64*", None, None, "f32*", "i64", "f32", "f32", "i64", "f32*", None)


class Config(ctypes.Structure):
    """What the driver is told of a launch beside its arguments."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_uint64),
        ("attributes", ctypes.c_uint64),
        ("n_attributes", ctypes.c_uint),
    )


def setting(name):
    return ctypes.c_int.in_dll(STUB, name)


def launch(kernel, words, args, blocks=3, device=0, stream=0):
    setting("stub_arguments").value = len(args)
    before = setting("stub_launches").value
    try:
        prims.launch(kernel, words, blocks, 32, device, stream, args)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return
    assert setting("stub_launches").value == before + 1
    config = Config.in_dll(STUB, "stub_config")
    given = list((ctypes.c_uint64 * 64).in_dll(STUB, "stub_given")[: len(args)])
    told = {"grid": list(config.grid), "block": list(config.block), "stream": config.stream, "given": given}
    told |= {"extras": config.shared + config.n_attributes}
    print(json.dumps(told | {name: setting(f"stub_{name}").value for name in ("device", "kernel")}))


def in_thread(function, *args, **kwargs):
    thread = threading.Thread(target=function, args=args, kwargs=kwargs)
    thread.start()
    thread.join()


def on_the_second_device():
    driver.cuCtxSetCurrent(driver.cuDevicePrimaryCtxRetain(1)[1])
    launch(_chunks.put_integers, WORDS, [1, 2, 3, 0], device=1)


def threads_at_once(times):
    """Let eight threads launch a kernel that is on the disk, each on a stream of its own."""
    faults, interval = [], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for _ in range(times):
        prims._compiled.clear()
        prims._configured.cache_clear()
        together = threading.Barrier(8)

        def once(stream, together=together):
            together.wait()
            try:
                prims.launch(_chunks.put_integers, WORDS, 1, 32, 0, stream, [8, 16, 1, 0])
            except BaseException as error:
                faults.append(f"{type(error).__name__}: {error}")

        setting("stub_arguments").value = 4
        threads = [threading.Thread(target=once, args=(stream,)) for stream in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.setswitchinterval(interval)
    print(json.dumps({"faults": faults}))


launch(_chunks.put_integers, WORDS, [1 << 47, 8, -7, 0])
launch(_chunks.put_integers, WORDS, [8, 16, True, 0], blocks=5, stream=0x7F0012345678)
in_thread(launch, _chunks.put_integers, WORDS, [8, 16, 1 << 40, 0])  # a thread without a context
in_thread(on_the_second_device)
launch(_reduce.scale_rows, SCALES, [8, 0, 0, 16, 1, 0.1, 3.0, 4, 24, 0])
threads_at_once(20)
setting("stub_capturing").value = 1
launch(_chunks.put_rows, ("f32*", "i64*", "i64", "i64", "i64", "f32*"), [0] * 6)
launch(_chunks.put_integers, WORDS, [8, 16, 1, 0], stream=7)
setting("stub_error").value = 719
launch(_chunks.put_integers, WORDS, [8, 16, 1, 0])
